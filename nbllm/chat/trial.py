"""A first look at a chat template that somebody wrote: could it ever answer?"""

from __future__ import annotations

import contextlib

from nbllm.chat.budget import ProgramError
from nbllm.chat.program import Program
from nbllm.chat.templates import ChatTemplate
from nbllm.core import Message
from nbllm.errors import ParameterError, TemplateError

_PROBE = "31415926535"
"""A question that no filter for letters or white space changes."""
_MAX_REASON = 300


def check_template(source: str) -> None:
    """Find what would fail every chat, or leave every question out.

    A template that refuses a lone question is not judged: it may be made for other conversations.

    Raises:
        ParameterError: it cannot be parsed, or leaves out what the user says.
    """
    try:
        Program(source)
    except ProgramError as fault:
        where = f" at line {fault.line}" if fault.line else ""
        problem = " ".join(fault.problem.split())[:_MAX_REASON]
        raise ParameterError("template", f"is no Jinja that can be run{where}: {problem}") from fault
    template = ChatTemplate(source, bos="", eos="", control_texts=())
    with contextlib.suppress(TemplateError):
        if _PROBE not in template.render([Message("user", _PROBE)]).text:
            raise ParameterError(
                "template", "leaves out what the user says: a chat template writes the content of each of `messages`"
            )
