r"""What stands for a variable in the text of a cell, and what stays as it was typed.

    {name} {obj.attr} {x[0]} {x[-1]} {d['key']} {df.a[0].b}   a place: a name of the notebook, and a path from it
    {x:.2f} {now:%d %B} {df:head=20}                          with a format; no space after the colon
    {{name}}                                                  {name}
    {{                                                        {, and the }} that closes it is }; a lone }} stays
    \frac{x}{y} \sum_{i}^{n} \sqrt[3]{x^{n}}                  arguments of a LaTeX command stay; \frac {x} has a place

Everything else stays: a name that the notebook does not have, `{}`, `{0}`, JSON, `{k: v for k, v in pairs}`,
`{x + 1}`, `{f()}`. A LaTeX command is a backslash and letters, so that `C:\logs{x}` and `\n{x}` stay too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from nbllm.errors import InvalidRequestError
from nbllm.notebook.values import failure, one_line

_NAME = r"[^\W\d]\w*+"
_STEP = re.compile(
    rf"""\.(?P<attribute>{_NAME})|\[(?:(?P<index>-?\d{{1,18}})|'(?P<key>[^'\\\x00-\x1f]*+)'|"(?P<quoted>[^"\\\x00-\x1f]*+)")\]"""
)
_ANY_STEP = re.sub(r"\?P<\w+>", "?:", _STEP.pattern)
# Spaces only after a %, as dates want them: {k:v for k in x} is code.
_SPEC = r"[^\s{}]++(?=\})|[^\s{}%]*+%[^{}\x00-\x1f]++"
_PLACE = rf"\{{(?P<root>{_NAME})(?P<path>(?:{_ANY_STEP})*+)(?::(?P<spec>{_SPEC}))?+\}}"
_UP_TO_ARGUMENT = re.compile(r"(?:\[[^][{}\n]*+\])?+(?:[_^][^\W_])*+[_^]?+")  # from a command, or an argument before
_COMMAND = rf"\\[A-Za-z]++\*?+{_UP_TO_ARGUMENT.pattern}"
_TOKEN = re.compile(rf"(?P<command>{_COMMAND})|\{{\{{|(?P<place>{_PLACE})|[{{}}]")

_OF_CELLS = {"In": "has not run", "Out": "has no output that is kept", "Err": "has not failed"}

Show = Callable[[object, str], str]


def interpolate(text: str, names: Mapping[str, object], show: Show) -> str:
    """`text` with every place filled in, in one pass: what a value holds is never looked at again.

    Args:
        show: makes the text of a value and a format; it refuses them with a ValueError or a TypeError.

    Raises:
        InvalidRequestError: a path leads nowhere, or a value cannot be shown; the message names the place.
    """
    return _Walk(text, names, show).run()


class _Group(NamedTuple):
    """An opening brace that begins no place."""

    doubled: bool
    is_argument: bool


class _Walk:
    def __init__(self, text: str, names: Mapping[str, object], show: Show) -> None:
        self._text, self._names, self._show = text, names, show
        self._closed = _closed(text)
        self._open: list[_Group] = []
        self._num_arguments = 0  # of the groups that are open
        self._argument_at = -1

    def run(self) -> str:
        parts = []
        position = 0
        while token := _TOKEN.search(self._text, position):
            parts.append(self._text[position : token.start()])
            written, position = self._step(token)
            parts.append(written)
        parts.append(self._text[position:])
        return "".join(parts)

    def _step(self, token: re.Match[str]) -> tuple[str, int]:
        """What is written for a token, and where the walk goes on."""
        if token["command"]:
            self._argument_at = token.end()
        elif token["place"]:
            return self._place(token), token.end()
        elif token[0] == "}":
            return "}", self._close(token.start())
        else:
            self._begin(token)
            return "{", token.end()
        return token[0], token.end()

    def _place(self, token: re.Match[str]) -> str:
        if token.start() == self._argument_at:
            self._end_argument(token.end())
        elif not self._num_arguments and token["root"] in self._names:
            return _filled(token, self._names, self._show)
        return token[0]

    def _begin(self, token: re.Match[str]) -> None:
        # One that is never closed is no argument, or it would hide all places after it.
        is_argument = token.start() == self._argument_at and token.start() in self._closed
        self._open.append(_Group(token[0] == "{{", is_argument))
        self._num_arguments += is_argument

    def _close(self, position: int) -> int:
        """Where the text after a closing brace begins."""
        if not self._open:
            return position + 1
        group = self._open.pop()
        end = position + (2 if group.doubled and self._text.startswith("}}", position) else 1)
        if group.is_argument:
            self._num_arguments -= 1
            self._end_argument(end)
        return end

    def _end_argument(self, position: int) -> None:
        following = _UP_TO_ARGUMENT.match(self._text, position)
        self._argument_at = following.end() if following else position


def _closed(text: str) -> set[int]:
    """Where the braces stand that a later one closes."""
    opened: list[int] = []
    closed = set()
    for brace in re.finditer("[{}]", text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif opened:
            closed.add(opened.pop())
    return closed


def _filled(place: re.Match[str], names: Mapping[str, object], show: Show) -> str:
    typed = one_line(place[0])
    value = names[place["root"]]
    for step in _STEP.finditer(place["path"]):
        try:
            value = _follow(value, step)
        except Exception as error:
            raise InvalidRequestError(
                f"{typed}: {_problem(place['root'], step, error)}; correct it, or write {{{typed}}} for the text itself"
            ) from error
    try:
        return show(value, place["spec"] or "")
    except (ValueError, TypeError) as error:
        raise InvalidRequestError(f"{typed}: {_reason(error)}") from error


def _problem(root: str, step: re.Match[str], error: Exception) -> str:
    if root in _OF_CELLS and step["index"] is not None and step.start() == 0 and isinstance(error, LookupError):
        return f"cell {step['index']} {_OF_CELLS[root]}"
    return f"{step[0]} failed with {failure(error)}"


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, InvalidRequestError) else failure(error)


def _follow(value: Any, step: re.Match[str]) -> object:
    if step["attribute"] is not None:
        return getattr(value, step["attribute"])
    if step["index"] is not None:
        return value[int(step["index"])]
    return value[step["quoted"] if step["key"] is None else step["key"]]
