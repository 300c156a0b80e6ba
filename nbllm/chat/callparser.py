"""Takes the calls that a model wants made out of its answer, as the text arrives."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from nbllm.chat.callformats import CallFormat
from nbllm.core import ToolCallDelta

MAX_CALLS = 16
"""Of one answer."""
_MAX_DEPTH = 64
_MAX_NAME = 200
_NOT_IN_NAME = re.compile(r"[{\n]")
_HEAD = re.compile(r'\s*\[?\s*\{"name": ("(?:[^"\\]|\\.)*"), "(?:arguments|parameters)": (?=\{)')
_BETWEEN = frozenset(" \t\n\r,:.+-0123456789truefalsnE")
_CLOSERS = {"{": "}", "[": "]"}


class Parsed(NamedTuple):
    """New text of the answer and new pieces of its calls."""

    content: str
    calls: tuple[ToolCallDelta, ...]


class CallParser:
    """Takes an answer in pieces and gives it back as content and calls. One answer, then `finish`.

    What may turn out to be a call is held back, until its JSON is whole and names a known tool; otherwise it is
    content, and nothing of it is lost. White space next to a call is dropped. The result, put together, does not depend
    on how the text is cut into pieces.

    Args:
        names: of the tools that may be called.
        make_id: the id of a call, from its index.
        most: calls that an answer may have; what comes after them is dropped.
        trusted: a grammar guarantees the calls, so that their arguments are passed on as they come, and that there is
            nothing else: a call that is cut off before its arguments is dropped.
        alone: a grammar says that the answer is calls or something else: what follows any text is text too, whatever it
            looks like.
    """

    def __init__(
        self,
        form: CallFormat,
        names: Collection[str],
        make_id: Callable[[int], str],
        *,
        most: int = MAX_CALLS,
        trusted: bool = False,
        alone: bool = False,
    ) -> None:
        self._form, self._names, self._make_id, self._most = form, frozenset(names), make_id, most
        self._trusted = self._only_calls = trusted
        self._alone = alone
        self._state: Callable[[], bool] = self._in_text
        self._held = ""
        self._lead = ""  # what stood before a call, to be given back if it is none
        self._at_start = True
        self._at_edge = False  # right after a call: white space that comes next is dropped
        self._scanner = _ObjectScanner()
        self._content: list[str] = []
        self._calls: list[ToolCallDelta] = []
        self.num_calls = 0

    @property
    def is_full(self) -> bool:
        """Whether no further call may come, the last one being whole."""
        return self._state == self._in_nothing

    @property
    def opened(self) -> str | None:
        """What stands after the opening of a call that is held back; None outside of one."""
        is_held = self._state == self._in_call and not self._trusted and self._lead.endswith(self._form.opening)
        return self._held if is_held else None

    def trust(self) -> None:
        """From here on a grammar guarantees the calls."""
        self._trusted = True

    def push(self, text: str) -> Parsed:
        self._held += text
        while self._state():
            pass
        return self._taken()

    def finish(self) -> Parsed:
        """Give back what was held; nothing more can follow."""
        while self._state == self._in_call and not self._trusted:
            self._reject()
            while self._state():
                pass
        if self._state == self._in_text and not self._only_calls:
            self._write(self._held)
        self._held = ""
        return self._taken()

    # ---- the states: each does what it can with the held text, and says whether another one should go on

    def _in_text(self) -> bool:
        if self._at_edge:
            self._held = self._held.lstrip()
            self._at_edge = not self._held
        body = self._held.lstrip()
        if self._alone and not self.num_calls and not self._call_may_come(body):
            self._write(self._held)
            self._held = ""
            return False
        if self._form.is_bare and self._at_start and not self._opening_may_come(body):
            if body.startswith("{"):
                self._begin_call(self._held[: -len(body)], body)
                return True
            self._at_start = not body
        start = self._held.find(self._form.opening)
        if start >= 0:
            before, after = self._held[:start], self._held[start + len(self._form.opening) :]
            self._write(before.rstrip())
            self._begin_call(before[len(before.rstrip()) :] + self._form.opening, after)
            return True
        safe = len(self._held) - _overlap(self._held, self._form.opening)
        safe = len(self._held[:safe].rstrip())
        self._write(self._held[:safe])
        self._held = self._held[safe:]
        return False

    def _call_may_come(self, body: str) -> bool:
        is_bare_call = self._form.is_bare and body.startswith("{")
        return self._at_start and (is_bare_call or self._opening_may_come(body))

    def _opening_may_come(self, body: str) -> bool:
        return self._form.opening.startswith(body[: len(self._form.opening)])

    def _in_call(self) -> bool:
        if self._trusted and (head := self._head()) is not None:
            self._begin(*head)
            self._state = self._in_arguments
            return True
        start = self._start_of_object()
        if start is None:
            return False
        end = self._scanner.end(self._held, start) if start >= 0 else -1
        if end is None:
            return False
        call = self._call_of(self._held[:start], self._held[start:end]) if end >= 0 else None
        if call is None:
            self._reject()
            return True
        self._begin(call[0], self._held[end:])
        self._calls.append(ToolCallDelta(self.num_calls, arguments=call[1]))
        self._end_call()
        return True

    def _in_arguments(self) -> bool:
        end = self._scanner.end(self._held, 0, keep=False)
        size = len(self._held) if end is None else max(end, 0)
        if size:
            self._calls.append(ToolCallDelta(self.num_calls, arguments=self._held[:size]))
        self._held = self._held[size:]
        if end is None:
            return False
        self._end_call()
        if not self._form.after_name and not self.is_full:
            self._state = self._in_rest
        return True

    def _in_rest(self) -> bool:
        """After streamed arguments: the end of the object around them."""
        body = self._held.lstrip()
        if not body:
            return False
        self._held = body.removeprefix("}")
        self._state = self._after_call
        return True

    def _after_call(self) -> bool:
        body = self._held.lstrip()
        form = self._form
        if form.separator and body.startswith(form.separator):
            self._begin_call(form.separator, body[len(form.separator) :])
            return True
        if form.closing and form.closing.startswith(body[: len(form.closing)]):
            if len(body) < len(form.closing):
                return False
            self._held = body[len(form.closing) :]
        elif form.separator and not body:
            return False
        self._state, self._at_edge = self._in_text, True
        return True

    def _in_nothing(self) -> bool:
        self._held = ""
        return False

    # ---- steps

    def _write(self, text: str) -> None:
        if text:
            self._content.append(text)
            self._at_start = self._at_start and text.isspace()

    def _begin_call(self, lead: str, rest: str) -> None:
        self._lead, self._held = lead, rest
        self._scanner = _ObjectScanner()
        self._state = self._in_call

    def _begin(self, name: str, rest: str) -> None:
        self._calls.append(ToolCallDelta(self.num_calls, self._make_id(self.num_calls), name))
        self._held = rest
        self._scanner = _ObjectScanner()
        self._at_start = False

    def _end_call(self) -> None:
        self.num_calls += 1
        self._state = self._in_nothing if self.num_calls >= self._most else self._after_call

    def _reject(self) -> None:
        """It is no call: what stood before it is content, and the rest is looked at again."""
        self._write(self._lead)
        self._at_start = False
        self._state = self._in_text

    def _taken(self) -> Parsed:
        parsed = Parsed("".join(self._content), tuple(self._calls))
        self._content, self._calls = [], []
        return parsed

    def _head(self) -> tuple[str, str] | None:
        """The name and what follows, when the held text has got to the arguments."""
        if self._form.after_name:
            name, mark, rest = self._held.partition(self._form.after_name)
            return (name.strip(), rest) if mark and name.strip() in self._names and rest else None
        found = _HEAD.match(self._held)
        name = json.loads(found.group(1)) if found else ""
        return (name, self._held[found.end() :]) if found and name in self._names else None

    def _start_of_object(self) -> int | None:
        """Where the object begins in the held text: None when that is not known yet, -1 when there is none."""
        start = 0
        if self._form.after_name:
            head = self._held[:_MAX_NAME]
            found = head.find(self._form.after_name)
            if found < 0:
                return -1 if len(head) == _MAX_NAME or _NOT_IN_NAME.search(head.lstrip()) else None
            start = found + len(self._form.after_name)
        start += _blank(self._held, start)
        if self._form.is_list and self._held[start : start + 1] == "[":
            start += 1 + _blank(self._held, start + 1)
        if start == len(self._held):
            return None
        return start if self._held[start] == "{" else -1

    def _call_of(self, before: str, text: str) -> tuple[str, str] | None:
        """The name and the arguments of a whole object, None if it is no call."""
        members = _members(text)
        if members is None:
            return None
        if self._form.after_name:
            name: Any = before.partition(self._form.after_name)[0].strip().partition("[")[0]
            return (name, text) if name in self._names else None
        name = members.get("name", (None, ""))[0]
        if not isinstance(name, str) or name not in self._names:
            return None
        if self._alone and self._form.arguments not in members:  # a value of another shape that has a name too
            return None
        value, arguments = members.get("arguments") or members.get("parameters") or ({}, "{}")
        if isinstance(value, str):  # some models write the object as a text
            return (name, value) if _members(value) is not None else None
        return (name, arguments) if isinstance(value, dict) else None


class _ObjectScanner:
    """Finds where a JSON object ends, in a text that grows."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._in_string = self._is_escaped = False
        self._next = 0

    def end(self, text: str, start: int, *, keep: bool = True) -> int | None:
        """The index after the object that begins at `start`; None if it goes on, -1 if it is none.

        Args:
            keep: the text is the same one each time, longer; otherwise it is only what is new.
        """
        for index in range(max(start, self._next) if keep else start, len(text)):
            if not self._takes(text[index]):
                return -1
            if not self._open:
                return index + 1
        self._next = len(text)
        return None

    def _takes(self, char: str) -> bool:
        if self._in_string:
            self._in_string = self._is_escaped or char != '"'
            self._is_escaped = char == "\\" and not self._is_escaped
            return char >= " "
        if char in _CLOSERS:
            self._open.append(_CLOSERS[char])
            return len(self._open) <= _MAX_DEPTH
        if char in "}]":
            return bool(self._open) and self._open.pop() == char
        self._in_string = char == '"'
        return self._in_string or char in _BETWEEN


def _members(text: str) -> dict[str, tuple[Any, str]] | None:
    """The values of a JSON object with their texts; None when the text is none."""
    decoder = json.JSONDecoder()
    try:
        if not isinstance(json.loads(text), dict):
            return None
        found: dict[str, tuple[Any, str]] = {}
        place = _blank(text, 0) + 1
        while text[place := place + _blank(text, place)] != "}":
            key, place = decoder.raw_decode(text, place)
            place = text.index(":", place) + 1
            place += _blank(text, place)
            value, end = decoder.raw_decode(text, place)
            found[key] = value, text[place:end]
            end += _blank(text, end)
            place = end + (text[end] == ",")
    except (ValueError, RecursionError):
        return None
    return found


def _blank(text: str, start: int) -> int:
    """How much white space stands at `start`."""
    return len(text[start:]) - len(text[start:].lstrip()) if text[start : start + 1].isspace() else 0


def _overlap(text: str, tag: str) -> int:
    """How many characters at the end of `text` may be the beginning of `tag`."""
    for length in range(min(len(text), len(tag) - 1), 0, -1):
        if tag.startswith(text[-length:]):
            return length
    return 0
