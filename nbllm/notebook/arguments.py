"""What stands behind `%chat`: options first, then prose that is taken as it is.

A quote begins a quoted value only where an option's value begins, so that the apostrophes of prose mean nothing.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from IPython.core.error import UsageError
from IPython.core.magic_arguments import argument, magic_arguments

_Function = TypeVar("_Function", bound=Callable[..., Any])
_OPTION = re.compile(r"(-[A-Za-z]|-{1,2}[A-Za-z][\w-]+)(=|(?=\s)|$)")
_QUOTED = re.compile(r"""(?P<quote>["'])(?P<text>(?:\\.|(?!(?P=quote)).)*)(?P=quote)(?=\s|$)""", re.DOTALL)
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


@dataclass(frozen=True, slots=True)
class Flag:
    """An option of the magic. `metavar` names its value; without one it is a switch."""

    long: str
    help: str
    metavar: str | None = None
    short: str | None = None
    convert: Callable[[str], Any] = str
    repeatable: bool = False

    @property
    def name(self) -> str:
        return self.long.lstrip("-").replace("-", "_")


FLAGS = (
    Flag("--model", "A name from nbllm.models(), or the path of a GGUF file.", "NAME", "-m"),
    Flag("--system", "A system message; cells with the same one share a conversation.", "TEXT", "-s"),
    Flag("--temperature", "0 is greedy, 1 the model's own distribution.", "NUMBER", convert=_number),
    Flag("--top-p", "Choose from the likeliest tokens that make up this share; 1 is off.", "NUMBER", convert=_number),
    Flag("--top-k", "Choose from this many of the likeliest tokens; 0 is off.", "COUNT", convert=_number),
    Flag("--min-p", "Leave out tokens below this share of the likeliest; 0 is off.", "NUMBER", convert=_number),
    Flag("--max-tokens", "The most tokens to generate.", "COUNT", convert=_number),
    Flag("--seed", "The same seed makes the same choices.", "NUMBER", convert=_number),
    Flag("--stop", r"End the answer before this text (\n is a new line); may be repeated.", "TEXT", None, _stop, True),
    Flag("--timeout", "Seconds for everything; the text so far is kept.", "SECONDS", convert=_number),
    Flag("--reproducible", "The same text for the same request, whatever else runs; slower."),
    Flag("--new", "Start a new conversation. Without a prompt: just forget the old one."),
    Flag("--no-history", "Ask without the conversation, and leave it as it is."),
    Flag("--output", "Also put the Response into this variable.", "VAR", "-O", _variable),
)
_BY_FLAG = {flag: spec for spec in FLAGS for flag in (spec.long, spec.short) if flag}
_OWN = ("model", "system", "new", "no_history", "output")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatArguments:
    """What one cell asks for. `options` are those of `nbllm.Model.chat`."""

    prompt: str
    model: str | None = None
    system: str | None = None
    new: bool = False
    no_history: bool = False
    output: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


def chat_arguments(function: _Function) -> _Function:
    """Give a magic the options as its manual, which `%chat?` shows."""
    prompt = _argument("prompt", nargs="*", help="The rest of the line as it is, or the lines below %%%%chat.")
    decorated = prompt(function)
    for spec in reversed(FLAGS):
        names = [name for name in (spec.short, spec.long) if name]
        kind = {"metavar": spec.metavar} if spec.metavar else {"action": "store_true"}
        decorated = _argument(*names, help=spec.help, **kind)(decorated)
    manual: Callable[[_Function], _Function] = magic_arguments("chat")  # type: ignore[no-untyped-call]
    return manual(decorated)


def _argument(*names: str, **options: str) -> Callable[[_Function], _Function]:
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
    values: dict[str, Any] = {}
    rest = line.strip()
    while rest:
        if rest == "--" or rest.startswith("-- "):
            return values, rest[2:].strip()
        match = _OPTION.match(rest)
        if match is None:
            break
        spec = _BY_FLAG.get(match[1]) or _unknown(match[1])
        rest = rest[match.end() :]
        if spec.metavar is None:
            if match[2]:
                raise UsageError(f"{match[1]} is a switch and takes no value")
            values[spec.name] = True
        else:
            text, rest = _value(match[1], rest if match[2] else rest.lstrip())
            value = spec.convert(text)
            values[spec.name] = [*values.get(spec.name, ()), value] if spec.repeatable else value
        rest = rest.lstrip()
    return values, rest


def _value(flag: str, rest: str) -> tuple[str, str]:
    if quoted := _QUOTED.match(rest):
        return re.sub(r"\\([\"'])", r"\1", quoted["text"]), rest[quoted.end() :]
    word = _WORD.match(rest)
    if word is None:
        raise UsageError(f"{flag} needs a value: {flag} {_BY_FLAG[flag].metavar}")
    if word[0][0] in "\"'":
        raise UsageError(f"the quote after {flag} is not closed, or text follows it without a space: {word[0]}")
    return word[0], rest[word.end() :]


def _unknown(flag: str) -> NoReturn:
    import difflib

    close = difflib.get_close_matches(f"--{flag.lstrip('-')}", list(_BY_FLAG), n=1, cutoff=0.5)
    if close:
        raise UsageError(f"%chat has no option {flag}; did you mean {close[0]}? (%chat? lists them)")
    raise UsageError(f"%chat has no option {flag}; type %chat? for the list, or -- before text that starts with -")
