"""Options on the line of a magic: read first, and then prose that is taken as it is.

A quote begins a quoted value only where an option's value begins, so that the apostrophes of prose mean nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from IPython.core.error import UsageError
from IPython.core.magic_arguments import argument, magic_arguments

_Function = TypeVar("_Function", bound=Callable[..., Any])
_OPTION = re.compile(r"(-[A-Za-z]|-{1,2}[A-Za-z][\w-]+)(=|(?=\s)|$)")
_QUOTED = re.compile(r"""(?P<quote>["'])(?P<text>(?:\\.|(?!(?P=quote))[^\\])*+)(?P=quote)(?=\s|$)""", re.DOTALL)
_WORD = re.compile(r"\S+")


def as_value(text: str) -> Any:
    """A value as JSON writes it, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


@dataclass(frozen=True, slots=True)
class Flag:
    """An option of a magic. `metavar` names its value, or its two values; without one it is a switch."""

    long: str
    help: str
    metavar: str | tuple[str, str] | None = None
    short: str | None = None
    convert: Callable[[str], Any] = str
    repeatable: bool = False

    @property
    def name(self) -> str:
        return self.long.lstrip("-").replace("-", "_")


class Reader:
    """Reads the options of one magic.

    Args:
        magic: its name as a person types it, for messages.
    """

    def __init__(self, magic: str, flags: Sequence[Flag]) -> None:
        self._magic, self._flags = magic, flags
        self._by_flag = {flag: spec for spec in flags for flag in (spec.long, spec.short) if flag}

    def manual(self, rest: str, help_text: str) -> Callable[[_Function], _Function]:
        """A decorator that gives a magic the options as its manual, which a `?` behind its name shows.

        Args:
            rest: what the manual calls that which may stand besides the options.
        """

        def decorate(function: _Function) -> _Function:
            decorated = _argument(rest, nargs="*", help=help_text)(function)
            for spec in reversed(self._flags):
                names = [name for name in (spec.short, spec.long) if name]
                decorated = _argument(*names, help=spec.help, **_kind(spec))(decorated)
            manual: Callable[[_Function], _Function] = magic_arguments(self._magic.lstrip("%"))  # type: ignore[no-untyped-call]
            return manual(decorated)

        return decorate

    def leading(self, text: str) -> tuple[dict[str, list[Any]], str]:
        """The values of the options at the beginning, each in the order given, and what follows them.

        Raises:
            UsageError: an option is unknown or lacks its value; the message says what to type instead.
        """
        found: dict[str, list[Any]] = {}
        rest = text.strip()
        while rest:
            if rest == "--" or rest.startswith("-- "):
                return found, rest[2:].strip()
            match = _OPTION.match(rest)
            if match is None:
                break
            spec = self._by_flag.get(match[1]) or self._unknown(match[1])
            value, rest = self._taken(spec, match, rest[match.end() :])
            found.setdefault(spec.name, []).append(value)
            rest = rest.lstrip()
        return found, rest

    def with_words(self, text: str) -> tuple[dict[str, list[Any]], list[str]]:
        """The values of all options of a line, and the words among them, which may be in quotes. Raises UsageError."""
        found, rest = self.leading(text)
        words: list[str] = []
        while rest:
            word, rest = self._value("", rest)
            words.append(word)
            more, rest = self.leading(rest)
            for name, values in more.items():
                found.setdefault(name, []).extend(values)
        return found, words

    def _taken(self, spec: Flag, match: re.Match[str], rest: str) -> tuple[Any, str]:
        """The value of an option that was just read, and what follows it."""
        if spec.metavar is None:
            if match[2]:
                raise UsageError(f"{match[1]} is a switch and takes no value")
            return True, rest
        text, rest = self._value(match[1], rest if match[2] else rest.lstrip())
        if isinstance(spec.metavar, str):
            return spec.convert(text), rest
        second, rest = self._value(match[1], rest.lstrip())
        return (text, as_value(second)), rest

    def _value(self, flag: str, rest: str) -> tuple[str, str]:
        if quoted := _QUOTED.match(rest):
            return re.sub(r"\\([\"'])", r"\1", quoted["text"]), rest[quoted.end() :]
        word = _WORD.match(rest)
        if word is None:
            metavar = self._by_flag[flag].metavar or ""
            wanted = metavar if isinstance(metavar, str) else " ".join(metavar)
            raise UsageError(f"{flag} needs a value: {flag} {wanted}")
        if word[0][0] in "\"'":
            after = f" after {flag}" if flag else ""
            raise UsageError(f"the quote{after} is not closed, or text follows it without a space: {word[0]}")
        return word[0], rest[word.end() :]

    def _unknown(self, flag: str) -> NoReturn:
        import difflib

        names, magic = list(self._by_flag), self._magic
        is_glued = flag[1] != "-" and flag[:2] in self._by_flag
        close = difflib.get_close_matches(f"--{flag.lstrip('-')}", names, n=1, cutoff=0.8 if is_glued else 0.5)
        if close:
            raise UsageError(f"{magic} has no option {flag}; did you mean {close[0]}? ({magic}? lists them)")
        if is_glued:
            raise UsageError(f"{magic} has no option {flag}; write {flag[:2]} {flag[2:]}, or -- before such a text")
        raise UsageError(
            f"{magic} has no option {flag}; type {magic}? for the list, or -- before text that starts with -"
        )


def _kind(spec: Flag) -> dict[str, Any]:
    if spec.metavar is None:
        return {"action": "store_true"}
    return {"metavar": spec.metavar} if isinstance(spec.metavar, str) else {"metavar": spec.metavar, "nargs": 2}


def _argument(*names: str, **options: Any) -> Callable[[_Function], _Function]:
    return argument(*names, **options)  # type: ignore[no-untyped-call]  # IPython's is untyped
