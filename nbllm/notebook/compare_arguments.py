"""What stands behind `%%compare`: models and options on the line, prompts below it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from IPython.core.error import UsageError

from nbllm.notebook.arguments import as_number, variable_for
from nbllm.notebook.flags import Flag, Reader

_NEXT_PROMPT = re.compile(r"^---[ \t]*$", re.MULTILINE)


def _numbers(text: str) -> Any:
    """One number, or several with commas between them. What is none is refused where the parameter is checked."""
    return [as_number(part.strip()) for part in text.split(",")]


def _whole(flag: str) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isdecimal():
            raise UsageError(f"{flag} takes a whole number, not {text!r}")
        return int(text)

    return convert


def _scorer(text: str) -> Any:
    name, equals, argument = text.partition("=")
    return (name, argument) if equals else name


FLAGS = (
    Flag("--system", "A system message.", "TEXT", "-s"),
    Flag("--temperature", "One number, or several as 0,0.8: each is tried.", "NUMBERS", convert=_numbers),
    Flag("--top-p", "Likewise.", "NUMBERS", convert=_numbers),
    Flag("--top-k", "Likewise.", "COUNTS", convert=_numbers),
    Flag("--min-p", "Likewise.", "NUMBERS", convert=_numbers),
    Flag("--max-tokens", "Likewise.", "COUNTS", convert=_numbers),
    Flag(
        "--option",
        "Any option of Model.chat by its name; of a JSON list each is tried.",
        ("NAME", "VALUE"),
        "-o",
        str,
        True,
    ),
    Flag("--schema", "The answers are JSON of this form: 'name, age int', a JSON Schema, or a variable.", "FORM"),
    Flag("--repeat", "How often each is asked.", "COUNT", convert=_whole("--repeat")),
    Flag("--seed", "What all choices are made from.", "NUMBER", convert=_whole("--seed")),
    Flag(
        "--data",
        "A variable with a table: {column} in the prompt, and each row is a case.",
        "VAR",
        "-d",
        variable_for("--data"),
    ),
    Flag("--expected", "The table's column with the right answers.", "COLUMN"),
    Flag(
        "--scorer",
        "equals, regex=[0-9]+, … or a variable with a function; may be repeated.",
        "NAME",
        None,
        _scorer,
        True,
    ),
    Flag("--judge", "A rubric by which a model grades the answers from 1 to 5.", "TEXT"),
    Flag(
        "--limit",
        "Only the first so many rows of the data, or prompts, each with all that is asked of it.",
        "COUNT",
        convert=_whole("--limit"),
    ),
    Flag("--output", "Also put the DataFrame into this variable.", "VAR", "-O", variable_for("--output")),
    Flag("--diff", "Mark the words in which the answers differ."),
    Flag("--no-cache", "Ask anew what was answered before."),
    Flag("--raw", "Send the text as it is: no {variables}."),
)
_READER = Reader("%%compare", FLAGS)
_GRID = ("temperature", "top_p", "top_k", "min_p", "max_tokens")
_LAST = ("system", "schema", "repeat", "seed", "data", "expected", "judge", "limit", "output")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareArguments:
    """What one cell asks for, by the names of the flags.

    Attributes:
        prompts: as they were typed.
        models: names and paths; none for the one that cells use.
        grid: of each parameter the values to try.
        scorers: names, or names with an argument.
    """

    prompts: tuple[str, ...]
    models: tuple[str, ...] = ()
    grid: Mapping[str, list[Any]] = field(default_factory=dict)
    scorers: tuple[Any, ...] = ()
    system: str | None = None
    schema: str | None = None
    repeat: int = 1
    seed: int = 0
    data: str | None = None
    expected: str | None = None
    judge: str | None = None
    limit: int | None = None
    output: str | None = None
    diff: bool = False
    cache: bool = True
    raw: bool = False


compare_arguments = _READER.manual(
    "models", "Names from nbllm.models(), paths of GGUF files, or variables with a Model such as nbllm.connect gives."
)


def parse_compare(line: str, cell: str) -> CompareArguments:
    """Read the first line and the body of `%%compare`; a line `---` in the body stands between two prompts.

    Raises:
        UsageError: an option is unknown or lacks its value, or there is no prompt; the message says what to type.
    """
    found, models = _READER.with_words(line)
    prompts = tuple(part.strip() for part in _NEXT_PROMPT.split(cell) if part.strip())
    if not prompts:
        raise UsageError("%%compare needs a prompt in the lines below it; a line --- stands between two prompts")
    if len(set(models)) < len(models):
        raise UsageError("%%compare names a model twice; --repeat asks the same one again")
    grid = {name: found[name][-1] for name in _GRID if name in found}
    for name, value in found.get("option", ()):
        grid[name] = value if isinstance(value, list) else [value]
    return CompareArguments(
        prompts=prompts,
        models=tuple(models),
        grid=grid,
        scorers=tuple(found.get("scorer", ())),
        diff="diff" in found,
        cache="no_cache" not in found,
        raw="raw" in found,
        **{name: found[name][-1] for name in _LAST if name in found},
    )
