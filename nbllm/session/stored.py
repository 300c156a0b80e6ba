"""An answer as JSON, and back: what is read is believed only where all of it is as it was written.

    1fa0...{"version": 1, "key": "...", "answer": {"text": "...", ..., "notes": {}}}

Before it are the 64 digits of its SHA-256. A value that is no Response is under "value" instead of "answer".
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from nbllm.chat import constraints
from nbllm.core import Constraint, Timings, TokenLogprob, Usage
from nbllm.session.response import Response

FINISHED = ("stop", "length")
"""How an answer ended that would be the same if it were asked for again."""
_VERSION = 1
_SUM_DIGITS = 64
_ANSWER = {"text", "reasoning", "finish_reason", "usage", "timings", "logprobs", "tokens", "seed", "model", "notes"}
_USAGE = {spec.name for spec in fields(Usage)}
_TIMINGS = {spec.name for spec in fields(Timings)}


class DamagedError(Exception):
    """The bytes are not what `dumped` or `dumped_value` made."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What was kept under one key: an answer with its notes, or a value.

    Attributes:
        answer: None where a value was kept.
        notes: of the surface that asked.
        value: what JSON can hold; None where an answer was kept.
    """

    answer: Response | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    value: Any = None

    def response(self, constraint: Constraint | None = None) -> Response:
        """The answer.

        Args:
            constraint: of the request; what the answer's text means is parsed by it.

        Raises:
            TypeError: it is a value.
        """
        if self.answer is None:
            raise TypeError("a value is kept under this key, and no answer")
        if constraint is None or self.answer.finish_reason != "stop":
            return self.answer
        return replace(self.answer, parsed=constraints.parse(constraint, self.answer.text))


def is_storable(response: Response) -> bool:
    """Whether it is whole, and the only answer to its prompt."""
    return response.finish_reason in FINISHED and response.error is None and not response.choices


def dumped(key: str, response: Response, notes: Mapping[str, Any]) -> bytes:
    """The answer as `loaded` takes it. What was parsed of it is left out: it is parsed again.

    Args:
        notes: what JSON can hold, of the surface that asked.
    """
    answer = {
        "text": response.text,
        "reasoning": response.reasoning,
        "finish_reason": response.finish_reason,
        "usage": _numbers(response.usage),
        "timings": _numbers(response.timings),
        "logprobs": [_entry(entry) for entry in response.logprobs],
        "tokens": list(response.tokens),
        "seed": response.seed,
        "model": response.model,
        "notes": dict(notes),
    }
    return _framed(key, "answer", answer)


def dumped_value(key: str, value: Any) -> bytes:
    """What JSON can hold as `loaded` takes it."""
    return _framed(key, "value", value)


def loaded(key: str, data: bytes) -> Entry:
    """What was stored under this key.

    Raises:
        DamagedError: it is another one's, or not whole, or anything else.
    """
    digits, body = data[:_SUM_DIGITS], data[_SUM_DIGITS:]
    if digits != _sum(body):
        raise DamagedError
    try:
        frame = json.loads(body.decode("ascii"))
        kind = "value" if "value" in frame else "answer"
        content = _fields(frame, {"version", "key", kind})[kind]
        if frame["version"] != _VERSION or frame["key"] != key:
            raise DamagedError
        if kind == "value":
            return Entry(value=content)
        return Entry(_response(_fields(content, _ANSWER)), _notes(content["notes"]))
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedError from error


def _framed(key: str, kind: str, content: object) -> bytes:
    body = json.dumps({"version": _VERSION, "key": key, kind: content}).encode("ascii")
    return _sum(body) + body


def _sum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode("ascii")


def _numbers(value: Usage | Timings) -> dict[str, Any]:
    return {spec.name: getattr(value, spec.name) for spec in fields(value)}


def _entry(entry: TokenLogprob) -> list[Any]:
    rivals = [[token, data.hex(), logprob] for token, data, logprob in entry.top]
    return [entry.token, entry.data.hex(), entry.logprob, rivals]


def _response(answer: Mapping[str, Any]) -> Response:
    if answer["finish_reason"] not in FINISHED:
        raise DamagedError
    return Response(
        text=_text(answer["text"]),
        reasoning=_text(answer["reasoning"]),
        finish_reason=answer["finish_reason"],
        usage=Usage(**_each(answer["usage"], _USAGE, _count)),
        timings=Timings(**_each(answer["timings"], _TIMINGS, _seconds)),
        logprobs=tuple(_logprob(entry) for entry in _list(answer["logprobs"])),
        tokens=_counts(answer["tokens"]),
        seed=None if answer["seed"] is None else _count(answer["seed"]),
        model=_text(answer["model"]),
    )


def _notes(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DamagedError
    return value


def _logprob(entry: object) -> TokenLogprob:
    token, data, logprob, rivals = _list(entry, 4)
    return TokenLogprob(_count(token), _bytes(data), _number(logprob), tuple(_rival(rival) for rival in _list(rivals)))


def _rival(rival: object) -> tuple[int, bytes, float]:
    token, data, logprob = _list(rival, 3)
    return _count(token), _bytes(data), _number(logprob)


def _fields(value: Any, names: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != names:
        raise DamagedError
    return value


def _each(value: object, names: set[str], check: Callable[[object], Any]) -> dict[str, Any]:
    return {name: check(number) for name, number in _fields(value, names).items()}


def _list(value: object, length: int | None = None) -> list[Any]:
    if not isinstance(value, list) or (length is not None and len(value) != length):
        raise DamagedError
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise DamagedError
    return value


def _bytes(value: object) -> bytes:
    return bytes.fromhex(_text(value))


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise DamagedError
    return value


def _counts(value: object) -> tuple[int, ...]:
    """Of a long list in a fraction of the time that `_count` takes for each."""
    counts = _list(value)
    if counts and (set(map(type, counts)) != {int} or min(counts) < 0):
        raise DamagedError
    return tuple(counts)


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value):
        raise DamagedError
    return value


def _seconds(value: object) -> float:
    number = _number(value)
    if not 0 <= number < math.inf:
        raise DamagedError
    return number
