"""A chat as a file: a document in Markdown, OpenAI's messages as JSON lines, or a notebook."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from nbllm.errors import ParameterError
from nbllm.frames.compare.formatting import shown
from nbllm.markup.characters import encodable
from nbllm.markup.reasoning import fold_reasoning
from nbllm.markup.safe import literal_markdown, safe_markdown
from nbllm.session.conversation import as_lines

if TYPE_CHECKING:
    from nbllm.core import Message
    from nbllm.notebook.tree import Turn

_UNFIT = re.compile(r"[^\w.-]+")
"""What a file's name should not hold on some system."""
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
_MAX_NAME_LENGTH = 80
_OPENING = re.compile("(`{3,})([^`]*)")
_RUNS_HERE = ("python", "py", "python3", "ipython")
"""Languages of blocks that a notebook's code cells can hold."""
_SPEAKERS = {"user": "You", "assistant": "The model"}
_KERNEL = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class Exported(NamedTuple):
    """A file that a browser can offer for saving."""

    name: str
    type: str
    content: str


def exported(format_name: str, name: str, path: Sequence[Turn]) -> Exported:
    """The turns of an active path as a file.

    Args:
        format_name: one of `FORMATS`.
        name: the conversation's, from which the file's is made.

    Raises:
        ParameterError: there is no such format.
    """
    if format_name not in FORMATS:
        raise ParameterError("format", f"{format_name!r} is not one of {', '.join(FORMATS)}")
    suffix, kind, write = FORMATS[format_name]
    content = encodable(write(name, path))
    return Exported(_file_name(name) + suffix, kind, content)


def messages(path: Sequence[Turn]) -> list[Message]:
    """All that was said, as it would be sent before the next question."""
    said = list(path[-1].beginning) if path else []
    for turn in path:
        said += (turn.question, turn.answer, *turn.after)
    return said


class _Said(NamedTuple):
    """One message, who said it, and safe Markdown of it and of what was thought before it."""

    speaker: str
    thoughts: str
    text: str
    is_answer: bool


def _as_markdown(name: str, path: Sequence[Turn]) -> str:
    parts = [f"# {_literal(name)}"]
    for said in _all_said(path):
        parts += [f"## {said.speaker}", said.thoughts, said.text]
    return "\n\n".join(filter(None, parts)) + "\n"


def _as_json_lines(name: str, path: Sequence[Turn]) -> str:
    return as_lines(messages(path)).decode("utf-8", errors="surrogatepass")


def _as_notebook(name: str, path: Sequence[Turn]) -> str:
    """Prose in Markdown cells, the Python of answers in code cells that have not run."""
    cells = [_cell("markdown", "title", f"# {_literal(name)}")]
    for number, said in enumerate(_all_said(path), 1):
        prose = f"## {said.speaker}\n\n{said.thoughts}".strip()
        parts = _parts(said.text) if said.is_answer else [_Part(False, said.text)]
        for part_number, part in enumerate(parts, 1):
            cell_id = f"message-{number}-{part_number}"
            if part.is_code:
                cells += [_cell("markdown", f"{cell_id}-text", prose)] if prose else []
                cells.append(_cell("code", cell_id, part.text))
            else:
                cells.append(_cell("markdown", cell_id, f"{prose}\n\n{part.text}".strip()))
            prose = ""
        cells += [_cell("markdown", f"message-{number}", prose)] if prose else []
    notebook = {"cells": cells, "metadata": _KERNEL, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"


FORMATS: Mapping[str, tuple[str, str, Callable[[str, Sequence[Turn]], str]]] = {
    "markdown": (".md", "text/markdown", _as_markdown),
    "jsonl": (".jsonl", "application/jsonl", _as_json_lines),
    "ipynb": (".ipynb", "application/x-ipynb+json", _as_notebook),
}
"""By the names of the formats: a file's suffix, its type, and what writes it."""


def _all_said(path: Sequence[Turn]) -> Iterator[_Said]:
    models = {id(turn.answer): turn.model for turn in path}
    for message in messages(path):
        is_answer = message.role == "assistant"
        speaker = models.get(id(message)) or _SPEAKERS.get(message.role, message.role.capitalize())
        thoughts = fold_reasoning(message.reasoning or "", done=True).strip("\n")
        calls = [f"{call.name}({call.arguments})" for call in message.tool_calls]
        text = safe_markdown("\n\n".join([message.content, *calls])).strip("\n")
        if text or thoughts:
            yield _Said(_literal(speaker), thoughts, text, is_answer)


class _Part(NamedTuple):
    is_code: bool
    text: str


def _parts(markdown: str) -> Iterator[_Part]:
    """Safe Markdown, with its blocks of Python apart: fences stand nowhere in it but at the top level."""
    prose: list[str] = []
    lines = iter(markdown.split("\n"))
    for line in lines:
        prose.append(line)
        opening = _OPENING.fullmatch(line)
        if opening is None:
            continue
        code = list(takewhile(lambda line, mark=opening[1]: line != mark, lines))  # type: ignore[misc]
        if opening[2].lower() not in _RUNS_HERE or not any(map(str.strip, code)):
            prose += [*code, opening[1]]
            continue
        prose.pop()
        if before := "\n".join(prose).strip("\n"):
            yield _Part(False, before)
        yield _Part(True, "\n".join(code).strip("\n"))
        prose = []
    if rest := "\n".join(prose).strip("\n"):
        yield _Part(False, rest)


def _cell(kind: str, cell_id: str, source: str) -> dict[str, Any]:
    cell = {"cell_type": kind, "id": cell_id, "metadata": {}, "source": source.splitlines(keepends=True)}
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def _file_name(name: str) -> str:
    stem = _UNFIT.sub("-", shown(name)).strip("-.")[:_MAX_NAME_LENGTH].rstrip("-.")
    return f"chat-{stem}" if _RESERVED.fullmatch(stem) else stem or "chat"


def _literal(text: str) -> str:
    return literal_markdown(" ".join(shown(text).split()), plain=" ,…→·-")
