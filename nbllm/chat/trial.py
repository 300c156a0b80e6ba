"""A first look at a chat template that somebody wrote: could it ever answer?"""

from __future__ import annotations

from nbllm.chat.budget import RefusalError
from nbllm.chat.templates import ChatTemplate
from nbllm.core import Message
from nbllm.errors import ParameterError, TemplateError

_PROBE = "31415926535"
"""A question that no filter for letters or white space changes."""


def check_template(source: str) -> None:
    """Find what would fail every chat, or leave every question out.

    A template that refuses what it is tried with is not judged: it may be made for other conversations.

    Raises:
        ParameterError: it cannot be parsed, fails, or leaves out what the user says.
    """
    template = ChatTemplate(source, bos="", eos="", control_texts=(), called="it")
    if (fault := template.fault) is not None:
        raise ParameterError("template", f"is no Jinja that can be run{fault.where}: {fault.in_a_line}") from fault
    try:
        text = _tried(template)
    except TemplateError as error:
        if not isinstance(error.__cause__, RefusalError):
            raise ParameterError("template", f"fails every chat: {error}") from error
    else:
        if _PROBE not in text:
            raise ParameterError(
                "template", "leaves out what the user says: a chat template writes the content of each of `messages`"
            )


def _tried(template: ChatTemplate) -> str:
    """Of a lone question, or of one at the end of a conversation."""
    question = Message("user", _PROBE)
    try:
        return template.render([question]).text
    except TemplateError:
        before = [Message("system", "a"), Message("user", "b"), Message("assistant", "c")]
        return template.render([*before, question]).text
