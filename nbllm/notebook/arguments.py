"""What stands behind `%chat`: options first, then prose that is taken as it is."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from IPython.core.error import UsageError

from nbllm.notebook.flags import Flag, Reader

_STOP_ESCAPES = {r"\n": "\n", r"\t": "\t", r"\\": "\\"}


def as_number(text: str) -> int | float | str:
    """What is no number stays text, which the check of the parameter refuses with the words that were typed."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _stop(text: str) -> str:
    return re.sub(r"\\[nt\\]", lambda match: _STOP_ESCAPES[match[0]], text)


def variable_for(flag: str) -> Callable[[str], str]:
    """What reads the value of an option that takes the name of a variable."""

    def convert(text: str) -> str:
        if not text.isidentifier() or keyword.iskeyword(text):
            raise UsageError(f"{flag} takes the name of a variable, such as answer, not {text!r}")
        return text

    return convert


def _pair(flag: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"{flag} takes NAME=VALUE, such as {flag} language=French, not {text!r}")
    return name.strip(), value


def _parameter(text: str) -> tuple[str, str]:
    return _pair("-p", text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) > _MOST_CELLS:
        raise UsageError(f"--context takes a number of cells from 0 to {_MOST_CELLS}, not {text!r}")
    return int(text)


def _format(text: str) -> str:
    if text not in FORMATS:
        raise UsageError(f"--format is one of {', '.join(FORMATS)}, not {text!r}")
    return text


FORMATS = ("markdown", "text", "code", "json", "html")
_MOST_CELLS = 100


FLAGS = (
    Flag("--model", "A name from nbllm.models(), or the path of a GGUF file.", "NAME", "-m"),
    Flag("--system", "A system message. It begins a conversation, or goes on with the one that has it.", "TEXT", "-s"),
    Flag("--conversation", "Go on with the conversation of this name, or begin it.", "NAME", "-c"),
    Flag("--new", "Begin a new conversation. Without a prompt: the next cell begins one."),
    Flag("--no-history", "Ask without the conversation, and leave it as it is."),
    Flag("--continue", "Go on with the last answer where it was interrupted or cut short."),
    Flag("--trim", "Leave out the oldest turns when they do not fit into the context, and say so."),
    Flag("--output", "Also put the Response into this variable.", "VAR", "-O", variable_for("--output")),
    Flag("--extract", "Put the code of the answer into the next cell.", None, "-x"),
    Flag("--usage", "Show all figures under the answer.", None, "-u"),
    Flag("--option", "Any option of Model.chat by its name.", ("NAME", "VALUE"), "-o", str, True),
    Flag("--schema", "The answer is JSON of this form: 'name, age int', a JSON Schema, or a variable.", "FORM"),
    Flag("--temperature", "0 is greedy, 1 the model's own distribution.", "NUMBER", convert=as_number),
    Flag("--top-p", "Choose from the likeliest tokens that make up this share; 1 is off.", "NUMBER", convert=as_number),
    Flag("--top-k", "Choose from this many of the likeliest tokens; 0 is off.", "COUNT", convert=as_number),
    Flag("--min-p", "Leave out tokens below this share of the likeliest; 0 is off.", "NUMBER", convert=as_number),
    Flag("--max-tokens", "The most tokens to generate.", "COUNT", convert=as_number),
    Flag("--seed", "The same seed makes the same choices.", "NUMBER", convert=as_number),
    Flag("--stop", r"End the answer before this text (\n is a new line); may be repeated.", "TEXT", None, _stop, True),
    Flag("--timeout", "Seconds for everything; the text so far is kept.", "SECONDS", convert=as_number),
    Flag("--reproducible", "The same text for the same request, whatever else runs; slower."),
    Flag("--raw", "Send the text as it is: no {variables}."),
    Flag("--format", f"How the answer is shown: {', '.join(FORMATS)}.", "NAME", convert=_format),
    Flag("--think", "Ask a model that can to reason first."),
    Flag("--no-think", "Ask it not to."),
    Flag("--template", "Use a template, a Markdown file found beside the notebook or in your folder.", "NAME", "-t"),
    Flag("--parameter", "A value for the template's {name}; may be repeated.", "NAME=VALUE", "-p", _parameter, True),
    Flag("--context", "Send the last N cells and their outputs along.", "N", convert=_count),
    Flag("--cache", "Answer an unchanged cell from disk."),
)
_READER = Reader("%chat", FLAGS)
_RENAMED = {"continue": "goes_on"}
_OPPOSITES = ("--think", "--no-think")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatArguments:
    """What one cell asks for, by the names of the flags. `options` are those of `nbllm.Model.chat`.

    Attributes:
        goes_on: `--continue`.
        think: what `--think` or `--no-think` say, None without either.
        parameter: the template's values.
    """

    prompt: str
    model: str | None = None
    system: str | None = None
    conversation: str | None = None
    new: bool = False
    no_history: bool = False
    goes_on: bool = False
    trim: bool = False
    output: str | None = None
    extract: bool = False
    usage: bool = False
    schema: str | None = None
    raw: bool = False
    format: str = "markdown"
    think: bool | None = None
    template: str | None = None
    parameter: Mapping[str, str] = field(default_factory=dict)
    context: int = 0
    cache: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def has(self, flag: str) -> bool:
        """Whether the cell gave the flag of this name."""
        name = _RENAMED.get(flag, flag)
        return bool(getattr(self, name) != getattr(ChatArguments(prompt=""), name))


_OWN = tuple(spec.name for spec in fields(ChatArguments) if spec.name not in ("prompt", "options"))


chat_arguments = _READER.manual("prompt", "The rest of the line as it is, or the lines below %%%%chat.")


def parse(line: str, cell: str | None = None) -> ChatArguments:
    """Read a line of `%chat`, or the first line and the body of `%%chat`.

    Raises:
        UsageError: an option is unknown or lacks its value; the message says what to type instead.
    """
    found, rest = _READER.leading(line)
    values = _merged(found)
    if cell is not None and rest:
        raise UsageError(f"%%chat takes options here, and the question in the lines below; {rest!r} is neither")
    own = {name: values.pop(name) for name in _OWN if name in values}
    return ChatArguments(prompt=(rest if cell is None else cell).strip(), options=values, **own)


def _merged(found: dict[str, list[Any]]) -> dict[str, Any]:
    """One value an option: the last one given, or all of those that may be repeated."""
    values = {name: given if name == "stop" else given[-1] for name, given in found.items()}
    values |= {_RENAMED[name]: values.pop(name) for name in _RENAMED if name in values}
    if "think" in values and "no_think" in values:
        raise UsageError(f"give only one of {' and '.join(_OPPOSITES)}")
    if values.pop("no_think", False):
        values["think"] = False
    if "parameter" in found:
        values["parameter"] = dict(found["parameter"])
    values.pop("option", None)
    for name, value in found.get("option", ()):
        values[name] = _not_own(name, value)
    return values


def _not_own(name: str, value: Any) -> Any:
    if name in _OWN:
        raise UsageError(f"-o {name} has an option of its own; %chat? lists it")
    return value
