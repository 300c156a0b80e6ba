"""What `%llm show` prints: the prompt as the model got it, and the tokens of each of its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nbllm.core import GenerateRequest, Message
    from nbllm.session.model import Model

_ROLES = {"system": "system", "developer": "system", "user": "question", "assistant": "answer", "tool": "tool"}


def describe(request: GenerateRequest, model: Model) -> str:
    """The rendered text between rules, after a table of its parts: each message's own tokens, then the template's."""
    request = model.applied(request)
    rendered = model.base_engine.render(request)
    total, length = len(rendered.tokens), model.info.context_length
    lines = [f"{tokens:7,} tokens  {part}" for part, tokens in _parts(request, model, total)]
    lines.append(f"{total:7,} tokens in all, {total / length:.0%} of the context of {length:,}")
    lines += [f"note: {note}" for note in (*rendered.notes, model.info.template_note) if note]
    return "\n".join([*lines, "─" * 40, rendered.text, "─" * 40])


def _parts(request: GenerateRequest, model: Model, total: int) -> Iterator[tuple[str, int]]:
    messages = request.messages or ()
    own = [len(model.base_engine.tokenize(message.content)) for message in messages]
    for number, (message, tokens) in enumerate(zip(messages, own, strict=True)):
        yield _label(message, is_last=number == len(messages) - 1), tokens
    yield "the template around them", total - sum(own)


def _label(message: Message, *, is_last: bool) -> str:
    text = " ".join(message.content.split())
    kind = _ROLES[message.role]
    if kind in ("question", "answer") and not is_last:
        kind = f"earlier {kind}"
    return f"{kind}: {text[:60]}{'…' if len(text) > 60 else ''}"
