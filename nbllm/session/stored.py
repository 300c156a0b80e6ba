"""An answer as JSON, and back: what is read is believed only where all of it is as it was written.

{"version": 1, "key": "...", "sum": "SHA-256 of the answer", "answer": {"text": "...", ..., "notes": {}}}
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from nbllm.core import Timings, TokenLogprob, Usage
from nbllm.session.response import Response

FINISHED = ("stop", "length")
"""How an answer ended that would be the same if it were asked for again."""
_VERSION = 1
_FRAME = {"version", "key", "sum", "answer"}
_ANSWER = {"text", "reasoning", "finish_reason", "usage", "timings", "logprobs", "tokens", "seed", "model", "notes"}


class DamagedError(Exception):
    """The bytes are not what `dumped` made."""


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
    frame = {"version": _VERSION, "key": key, "sum": _sum(answer), "answer": answer}
    return json.dumps(frame).encode("ascii")


def loaded(key: str, data: bytes) -> tuple[Response, Mapping[str, Any]]:
    """The answer that was stored under this key, and its notes.

    Raises:
        DamagedError: it is another one's, or not whole, or anything else.
    """
    try:
        frame = json.loads(data)
        answer = _fields(frame, _FRAME)["answer"]
        if frame["version"] != _VERSION or frame["key"] != key or frame["sum"] != _sum(answer):
            raise DamagedError
        return _response(_fields(answer, _ANSWER)), _notes(answer["notes"])
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedError from error


def _sum(answer: object) -> str:
    return hashlib.sha256(json.dumps(answer, sort_keys=True).encode("ascii")).hexdigest()


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
        usage=Usage(**_each(answer["usage"], Usage, _count)),
        timings=Timings(**_each(answer["timings"], Timings, _seconds)),
        logprobs=tuple(_logprob(entry) for entry in _list(answer["logprobs"])),
        tokens=tuple(_count(token) for token in _list(answer["tokens"])),
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


def _each(value: object, kind: type[Usage | Timings], check: Callable[[object], Any]) -> dict[str, Any]:
    given = _fields(value, {spec.name for spec in fields(kind)})
    return {name: check(number) for name, number in given.items()}


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


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value):
        raise DamagedError
    return value


def _seconds(value: object) -> float:
    number = _number(value)
    if not 0 <= number < math.inf:
        raise DamagedError
    return number
