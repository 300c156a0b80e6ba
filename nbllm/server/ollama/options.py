"""How tokens are chosen, from Ollama's `options` and the top-level fields beside them.

An option is honoured (`_SAMPLING`, `num_ctx`, `num_keep`), or it only says how fast or in which memory a model is
computed, which is this server's to decide (`_HINTS`: accepted, changes no answer), or it means nothing here, as it
does in today's Ollama (`mirostat`, `tfs_z`, `penalize_newline`, a typing error): then it is ignored, and logged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nbllm.core import RANGES, SamplingParams
from nbllm.core.numbers import Range
from nbllm.errors import ParameterError
from nbllm.wire.decoding import renamed, unknown_names
from nbllm.wire.ollama.shapes import AnswerBody

UNLIMITED = int(RANGES["max_tokens"].high)
"""Tokens of an answer that ends with the context at the latest."""
_NAMES = {"num_predict": "max_tokens"}
_SAMPLING = frozenset(
    ("temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_penalty", "repeat_last_n", "presence_penalty")
) | {"frequency_penalty", "seed", "stop", "num_predict"}
_TOP_LEVEL = ("temperature", "top_p", "top_k", "seed", "stop", "max_tokens")
_HINTS = frozenset(
    ("num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap", "use_mlock", "low_vram", "numa", "f16_kv")
) | {"vocab_only", "logits_all", "embedding_only", "draft_num_predict"}
_WHOLE = Range(int, -(2**63), 2**64 - 1, "a whole number of 64 bits")
_CONTEXT = Range(int, 1, 2**20, "from 1 to 1,048,576 tokens")
_MOST_LAST_N = int(RANGES["repeat_last_n"].high)
_NUM_SEEDS = int(RANGES["seed"].high) + 1
_MAX_STOPS = 64
_MAX_TOP_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class Room:
    """How much of a context a request wants.

    Attributes:
        context_length: tokens that prompt and answer may have together (`num_ctx`); None is what the engine has.
        num_keep: first tokens that stay when the beginning of a raw prompt has to go.
        truncates: whether a prompt that is too long loses its oldest part; else it is an error.
    """

    context_length: int | None = None
    num_keep: int = 1
    truncates: bool = True


def sampling(body: AnswerBody) -> SamplingParams:
    """What `options` say, else the top level, else nothing: then the model's own recommendation holds.

    Raises:
        ParameterError: a value is of a wrong type or out of range, under the client's name.
    """
    given = {name: value for name in _TOP_LEVEL if (value := getattr(body, name)) is not None}
    names = {name: name for name in given}
    for name, value in (body.options or {}).items():
        if name in _SAMPLING and value is not None:
            core = _NAMES.get(name, name)
            given[core], names[core] = value, f"options.{name}"
    with renamed(names):
        read = {name: _READ[name](name, value) if name in _READ else value for name, value in given.items()}
        likelihoods: dict[str, Any] = {"logprobs": bool(body.logprobs), "top_logprobs": _top_logprobs(body)}
        known = {name: value for name, value in read.items() if value is not None}
        return SamplingParams(**{"max_tokens": UNLIMITED, **known, **likelihoods})


def assumed(body: AnswerBody) -> tuple[str, ...]:
    """The parameters of `sampling` that have a value though `body` says nothing of them."""
    is_said = body.max_tokens is not None or (body.options or {}).get("num_predict") is not None
    return () if is_said else ("max_tokens",)


def room(options: Mapping[str, Any] | None, truncates: bool | None) -> Room:
    """Raises ParameterError for sizes that are none."""
    given = options or {}
    length, kept = given.get("num_ctx"), given.get("num_keep")
    return Room(
        None if length is None else int(_CONTEXT.checked("options.num_ctx", length)),
        1 if kept is None else max(0, int(_WHOLE.checked("options.num_keep", kept))),
        truncates is not False,
    )


def unknown_options(options: Mapping[str, Any] | None) -> tuple[str, ...]:
    known = _SAMPLING | _HINTS | {"num_ctx", "num_keep"}
    return tuple(f"options.{name}" for name in unknown_names(options or (), known))


def _top_logprobs(body: AnswerBody) -> int:
    """Without `logprobs` it means nothing, as in Ollama."""
    number = body.top_logprobs or 0
    if not 0 <= number <= _MAX_TOP_LOGPROBS or number != int(number):
        raise ParameterError("top_logprobs", f"must be between 0 and {_MAX_TOP_LOGPROBS}")
    return int(number) if body.logprobs else 0


def _max_tokens(name: str, value: object) -> int:
    """Ollama's -1 is without end, its -2 to the end of the context, and its 0 no limit either."""
    number = int(_WHOLE.checked(name, value))
    return min(number, UNLIMITED) if number > 0 else UNLIMITED


def _seed(name: str, value: object) -> int | None:
    """A negative one means any."""
    number = int(_WHOLE.checked(name, value))
    return number % _NUM_SEEDS if number >= 0 else None


def _top_k(name: str, value: object) -> int:
    """Off at 0 and below."""
    return min(max(0, int(_WHOLE.checked(name, value))), int(RANGES["top_k"].high))


def _repeat_last_n(name: str, value: object) -> int:
    """The whole context at -1."""
    number = int(_WHOLE.checked(name, value))
    return _MOST_LAST_N if number < 0 else min(number, _MOST_LAST_N)


def _stop(name: str, value: object) -> Any:
    if isinstance(value, list) and len(value) > _MAX_STOPS:
        raise ParameterError(name, f"has {len(value):,} texts; at most {_MAX_STOPS} are taken")
    return value


_READ = {
    "max_tokens": _max_tokens,
    "seed": _seed,
    "top_k": _top_k,
    "repeat_last_n": _repeat_last_n,
    "stop": _stop,
}
