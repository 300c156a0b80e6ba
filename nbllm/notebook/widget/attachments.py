"""Text files that go with a question, as a part of its text:

    What is the mean of b?

    Attached files (1):

    data.csv:
    ```csv
    a,b
    1,2
    ```

Each fence is longer than any run of backticks in its file, so that nothing in a file can end it. A text that was typed
and looks like this ends in `Attached files (0):`, which keeps it apart.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import NamedTuple

from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.markup.characters import encodable
from nbllm.markup.code import fence

MAX_FILES = 8
MAX_BYTES = 200_000
"""Of one file, in UTF-8."""
IMAGES = "the model reads text only: describe the picture in words, or paste the text that is in it"
"""Why an image is refused, and what to do."""

_MAX_NAME_LENGTH = 100
_MAX_SUFFIX_LENGTH = 12
_NO_NAME = "file"
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
"""Unicode's categories of what has no look of its own: controls, marks of direction, surrogates, private characters."""
_HEADER = re.compile(r"Attached files \((\d{1,4})\):")
_NOTHING = "Attached files (0):"
_OPENING = re.compile("(`{3,})([^`]+)")
_BACKTICKS = re.compile("`+")
_BEGINNINGS = ("%PDF-", "GIF8", "PK\x03\x04", "\x89PNG", "\N{REPLACEMENT CHARACTER}PNG")
_NOT_IN_TEXT = re.compile("[\x00-\x06\x0e-\x1a\x1c-\x1f\N{REPLACEMENT CHARACTER}]")
_LANGUAGES = {
    "py": "python",
    "ipynb": "json",
    "js": "javascript",
    "ts": "typescript",
    "md": "markdown",
    "rs": "rust",
    "sh": "bash",
    "yml": "yaml",
    "htm": "html",
}
_KNOWN_AS_THEY_ARE = (
    *("c", "cpp", "css", "csv", "go", "h", "html", "ini", "java", "json", "jsonl", "kt", "log", "lua", "php"),
    *("r", "rb", "sql", "svg", "tex", "toml", "tsv", "xml", "yaml"),
)


class Attachment(NamedTuple):
    """A text file by its name, which has no folder in it."""

    name: str
    text: str


def checked(entries: object) -> tuple[Attachment, ...]:
    """What a page sent as `[{"name", "type", "text"}, ...]`.

    Raises:
        InvalidRequestError: a file is no text or too large, or there are too many; the message says what to do.
    """
    if entries is None:
        return ()
    if not isinstance(entries, Sequence) or isinstance(entries, str | bytes):
        raise ParameterError("attachments", f"must be a list of files, not {type(entries).__name__}")
    if len(entries) > MAX_FILES:
        raise InvalidRequestError(
            f"{len(entries):,} files are too many for one question: attach at most {MAX_FILES}, or put some in one file"
        )
    return tuple(map(_checked, entries))


def clean_name(name: str) -> str:
    """A file's name for one line of text: without folders, and without characters that are not seen."""
    name = re.split(r"[/\\]", name.rstrip("/\\ "))[-1].replace("`", "'")
    name = "".join(char for char in name if char == "\t" or unicodedata.category(char) not in _UNSEEN)
    name = " ".join(name.split())
    if len(name) > _MAX_NAME_LENGTH:
        suffix = PurePath(name).suffix
        suffix = suffix if len(suffix) <= _MAX_SUFFIX_LENGTH else ""
        name = name[: _MAX_NAME_LENGTH - 1 - len(suffix)] + "…" + suffix
    return name if name.strip(". ") else _NO_NAME


def as_text(text: str, attachments: Iterable[Attachment] = ()) -> str:
    """The question with its files, as the model reads it; `split` takes them apart again."""
    blocks = [_block(clean_name(name), content) for name, content in attachments]
    if not blocks:
        return _joined(text, _NOTHING) if _looks_made(text) else text
    return _joined(text, f"Attached files ({len(blocks)}):", *blocks)


class Split(NamedTuple):
    """A question as the person typed it, and the names of its files."""

    text: str
    names: tuple[str, ...]


def split(text: str) -> Split:
    """What `as_text` made, without the files' contents; any other text is all question."""
    typed = text.removesuffix(f"\n\n{_NOTHING}")
    if typed != text:
        return Split(typed if _looks_made(typed) else text, ())
    return _with_files(text) or Split(text, ())


def _checked(entry: object) -> Attachment:
    given = entry if isinstance(entry, Mapping) else {}
    name, kind, text = given.get("name"), given.get("type", ""), given.get("text")
    if not isinstance(name, str) or not isinstance(text, str) or not isinstance(kind, str):
        raise ParameterError("attachments", "each must have a name, a type and a text, all of them strings")
    name = clean_name(name)
    _refuse_binary(name, kind.lower().strip(), text)
    text = encodable(text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"))
    if not text.strip():
        raise InvalidRequestError(f"{name} is empty, so there is nothing in it to ask about: leave it out")
    size = len(text.encode())
    if size > MAX_BYTES:
        raise InvalidRequestError(
            f"{name} has {size:,} bytes and a file may have {MAX_BYTES:,}: attach the part of it that matters"
        )
    return Attachment(name, text)


def _refuse_binary(name: str, kind: str, text: str) -> None:
    if kind.startswith("image/") and kind != "image/svg+xml":
        raise InvalidRequestError(f"{name} is an image, and {IMAGES}")
    if kind.startswith(("audio/", "video/")):
        raise InvalidRequestError(
            f"{name} is {kind.partition('/')[0]}, and the model reads text only: write out its words"
        )
    if text.startswith(_BEGINNINGS) or "\x00" in text or len(_NOT_IN_TEXT.findall(text)) > 5 + len(text) // 20:
        raise InvalidRequestError(f"{name} is not a text file: save it as text (UTF-8), and attach that")


def _joined(text: str, *parts: str) -> str:
    return "\n\n".join([text, *parts] if text else parts)


def _block(name: str, content: str) -> str:
    return f"{name}:\n{fence(content.removesuffix(chr(10)).split(chr(10)), _language(name))}"


def _language(name: str) -> str:
    suffix = PurePath(name).suffix.removeprefix(".").lower()
    return _LANGUAGES.get(suffix, suffix if suffix in _KNOWN_AS_THEY_ARE else "text")


def _looks_made(text: str) -> bool:
    """Whether `split` would not leave the text as it is: as_text made it, or somebody typed the same."""
    marker, end = f"\n\n{_NOTHING}", len(text)
    while text.endswith(marker, 0, end):
        end -= len(marker)
    return _with_files(text[:end]) is not None


def _with_files(text: str) -> Split | None:
    """Read from the end, where each line can only be what it is: a file's closing fence, or nothing of ours."""
    lines = text.split("\n")
    names: list[str] = []
    end = len(lines)
    while (start := _start_of_block(lines, end)) is not None:
        names.append(lines[start][:-1])
        end = start - 1  # the empty line before it
        if header := _HEADER.fullmatch(lines[end - 1]):
            return _before(lines, end - 1, names) if header[1] == str(len(names)) else None
    return None


def _before(lines: list[str], header: int, names: list[str]) -> Split | None:
    typed = "\n".join(lines[: max(0, header - 1)])
    is_ours = header == 0 or (lines[header - 1] == "" and typed != "")
    return Split(typed, tuple(reversed(names))) if is_ours else None


def _start_of_block(lines: list[str], end: int) -> int | None:
    """The index of the line with the name of the file whose block ends before line `end`; two lines stand above it."""
    mark = lines[end - 1]
    if len(mark) < 3 or mark.strip("`"):
        return None
    longest, index = 0, end - 2
    while index >= 3:
        run = max(map(len, _BACKTICKS.findall(lines[index])), default=0)
        if run >= len(mark):
            break
        longest, index = max(longest, run), index - 1
    if index < 3 or len(mark) != max(3, longest + 1):
        return None
    opening, named = _OPENING.fullmatch(lines[index]), lines[index - 1]
    name = named.removesuffix(":")
    is_named = name != named and clean_name(name) == name and lines[index - 2] == ""
    return index - 1 if is_named and opening and (opening[1], opening[2]) == (mark, _language(name)) else None
