"""What stands behind `%chat`: options first, then prose that is taken as it is.

A quote begins a quoted value only where an option's value begins, so that the apostrophes of prose mean nothing.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NoReturn, TypeVar

from IPython.core.error import UsageError
from IPython.core.magic_arguments import argument, magic_arguments

_Function = TypeVar("_Function", bound=Callable[..., Any])
_OPTION = re.compile(r"(-[A-Za-z]|-{1,2}[A-Za-z][\w-]+)(=|(?=\s)|$)")
_QUOTED = re.compile(r"""(?P<quote>["'])(?P<text>(?:\\.|(?!(?P=quote))[^\\])*+)(?P=quote)(?=\s|$)""", re.DOTALL)
_WORD = re.compile(r"\S+")
_STOP_ESCAPES = {r"\n": "\n", r"\t": "\t", r"\\": "\\"}


def _number(text: str) -> int | float | str:
    """What is no number stays text, which the check of the parameter refuses with the words that were typed."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _stop(text: str) -> str:
    return re.sub(r"\\[nt\\]", lambda match: _STOP_ESCAPES[match[0]], text)


def _variable(text: str) -> str:
    if not text.isidentifier() or keyword.iskeyword(text):
        raise UsageError(f"--output takes the name of a variable, such as answer, not {text!r}")
    return text


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


def as_value(text: str) -> Any:
    """A value as JSON writes it, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


FORMATS = ("markdown", "text", "code", "json", "html")
_MOST_CELLS = 100


@dataclass(frozen=True, slots=True)
class Flag:
    """An option of the magic. `metavar` names its value, or its two values; without one it is a switch."""

    long: str
    help: str
    metavar: str | tuple[str, str] | None = None
    short: str | None = None
    convert: Callable[[str], Any] = str
    repeatable: bool = False

    @property
    def name(self) -> str:
        return self.long.lstrip("-").replace("-", "_")


FLAGS = (
    Flag("--model", "A name from nbllm.models(), or the path of a GGUF file.", "NAME", "-m"),
    Flag("--system", "A system message. It begins a conversation, or goes on with the one that has it.", "TEXT", "-s"),
    Flag("--conversation", "Go on with the conversation of this name, or begin it.", "NAME", "-c"),
    Flag("--new", "Begin a new conversation. Without a prompt: the next cell begins one."),
    Flag("--no-history", "Ask without the conversation, and leave it as it is."),
    Flag("--continue", "Go on with the last answer where it was interrupted or cut short."),
    Flag("--trim", "Leave out the oldest turns when they do not fit into the context, and say so."),
    Flag("--output", "Also put the Response into this variable.", "VAR", "-O", _variable),
    Flag("--extract", "Put the code of the answer into the next cell.", None, "-x"),
    Flag("--usage", "Show all figures under the answer.", None, "-u"),
    Flag("--option", "Any option of Model.chat by its name.", ("NAME", "VALUE"), "-o", str, True),
    Flag("--schema", "The answer is JSON of this form: 'name, age int', a JSON Schema, or a variable.", "FORM"),
    Flag("--temperature", "0 is greedy, 1 the model's own distribution.", "NUMBER", convert=_number),
    Flag("--top-p", "Choose from the likeliest tokens that make up this share; 1 is off.", "NUMBER", convert=_number),
    Flag("--top-k", "Choose from this many of the likeliest tokens; 0 is off.", "COUNT", convert=_number),
    Flag("--min-p", "Leave out tokens below this share of the likeliest; 0 is off.", "NUMBER", convert=_number),
    Flag("--max-tokens", "The most tokens to generate.", "COUNT", convert=_number),
    Flag("--seed", "The same seed makes the same choices.", "NUMBER", convert=_number),
    Flag("--stop", r"End the answer before this text (\n is a new line); may be repeated.", "TEXT", None, _stop, True),
    Flag("--timeout", "Seconds for everything; the text so far is kept.", "SECONDS", convert=_number),
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
_BY_FLAG = {flag: spec for spec in FLAGS for flag in (spec.long, spec.short) if flag}
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


def chat_arguments(function: _Function) -> _Function:
    """Give a magic the options as its manual, which `%chat?` shows."""
    prompt = _argument("prompt", nargs="*", help="The rest of the line as it is, or the lines below %%%%chat.")
    decorated = prompt(function)
    for spec in reversed(FLAGS):
        names = [name for name in (spec.short, spec.long) if name]
        kind = _kind(spec)
        decorated = _argument(*names, help=spec.help, **kind)(decorated)
    manual: Callable[[_Function], _Function] = magic_arguments("chat")  # type: ignore[no-untyped-call]
    return manual(decorated)


def _kind(spec: Flag) -> dict[str, Any]:
    if spec.metavar is None:
        return {"action": "store_true"}
    return {"metavar": spec.metavar} if isinstance(spec.metavar, str) else {"metavar": spec.metavar, "nargs": 2}


def _argument(*names: str, **options: Any) -> Callable[[_Function], _Function]:
    return argument(*names, **options)  # type: ignore[no-untyped-call]  # IPython's is untyped


def parse(line: str, cell: str | None = None) -> ChatArguments:
    """Read a line of `%chat`, or the first line and the body of `%%chat`.

    Raises:
        UsageError: an option is unknown or lacks its value; the message says what to type instead.
    """
    values, rest = _split(line)
    if cell is not None and rest:
        raise UsageError(f"%%chat takes options here, and the question in the lines below; {rest!r} is neither")
    own = {name: values.pop(name) for name in _OWN if name in values}
    return ChatArguments(prompt=(rest if cell is None else cell).strip(), options=values, **own)


def _split(line: str) -> tuple[dict[str, Any], str]:
    """The values of the leading options, and the prose after them."""
    found: dict[str, list[Any]] = {}
    rest = line.strip()
    while rest:
        if rest == "--" or rest.startswith("-- "):
            rest = rest[2:].strip()
            break
        match = _OPTION.match(rest)
        if match is None:
            break
        spec = _BY_FLAG.get(match[1]) or _unknown(match[1])
        value, rest = _taken(spec, match, rest[match.end() :])
        found.setdefault(spec.name, []).append(value)
        rest = rest.lstrip()
    return _merged(found), rest


def _taken(spec: Flag, match: re.Match[str], rest: str) -> tuple[Any, str]:
    """The value of an option that was just read, and what follows it."""
    if spec.metavar is None:
        if match[2]:
            raise UsageError(f"{match[1]} is a switch and takes no value")
        return True, rest
    text, rest = _value(match[1], rest if match[2] else rest.lstrip())
    if isinstance(spec.metavar, str):
        return spec.convert(text), rest
    second, rest = _value(match[1], rest.lstrip())
    return (text, as_value(second)), rest


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


def _value(flag: str, rest: str) -> tuple[str, str]:
    if quoted := _QUOTED.match(rest):
        return re.sub(r"\\([\"'])", r"\1", quoted["text"]), rest[quoted.end() :]
    word = _WORD.match(rest)
    if word is None:
        metavar = _BY_FLAG[flag].metavar or ""
        wanted = metavar if isinstance(metavar, str) else " ".join(metavar)
        raise UsageError(f"{flag} needs a value: {flag} {wanted}")
    if word[0][0] in "\"'":
        raise UsageError(f"the quote after {flag} is not closed, or text follows it without a space: {word[0]}")
    return word[0], rest[word.end() :]


def _unknown(flag: str) -> NoReturn:
    import difflib

    names = list(_BY_FLAG)
    is_glued = flag[1] != "-" and flag[:2] in _BY_FLAG
    close = difflib.get_close_matches(f"--{flag.lstrip('-')}", names, n=1, cutoff=0.8 if is_glued else 0.5)
    if close:
        raise UsageError(f"%chat has no option {flag}; did you mean {close[0]}? (%chat? lists them)")
    if is_glued:
        raise UsageError(f"%chat has no option {flag}; write {flag[:2]} {flag[2:]}, or -- before such a text")
    raise UsageError(f"%chat has no option {flag}; type %chat? for the list, or -- before text that starts with -")
