"""What chats and old completions say about the choice of tokens, and their other common fields."""

from __future__ import annotations

from typing import Any

from nbllm.core import RANGES, SamplingParams
from nbllm.core.durations import parse_duration
from nbllm.errors import ParameterError
from nbllm.wire.decoding import renamed
from nbllm.wire.openai.shapes import SEED, GenerationBody

_TEMPERATURE = 1.0  # OpenAI's; the engine's own default would be the model's recommendation
_MAX_STOPS = 16
_MAX_TOKEN_ID = 2**31 - 1
_NUM_SEEDS = int(RANGES["seed"].high) + 1
_MAX_TIMEOUT_S = 1e9  # a wait beyond 300 years overflows in places
_NAMES = frozenset((*RANGES, "stop", "logit_bias"))


def sampling(body: GenerationBody, names: dict[str, str], **others: Any) -> SamplingParams:
    """The parameters that `body` gives, and `others` over them.

    Args:
        names: core's name to the client's, where it was the client's that was given.

    Raises:
        ParameterError: a value is of a wrong type or out of range.
    """
    given: dict[str, Any] = {name: getattr(body, name, None) for name in _NAMES} | others
    given = {name: value for name, value in given.items() if value is not None}
    if isinstance(body.stop, list) and len(body.stop) > _MAX_STOPS:
        raise ParameterError("stop", f"has {len(body.stop):,} texts; at most {_MAX_STOPS} are taken")
    if "seed" in given:
        given["seed"] = int(SEED.checked("seed", given["seed"])) % _NUM_SEEDS
    with renamed(names):
        params = SamplingParams(**{"temperature": _TEMPERATURE, **given})
    for token in params.logit_bias:
        if token > _MAX_TOKEN_ID:
            raise ParameterError("logit_bias", f"{token!s:.20} is not a token id")
    return params


def assumed(body: GenerationBody, *names: str) -> tuple[str, ...]:
    """Those of the parameters, by default the temperature, that `body` leaves to what OpenAI has for them."""
    return tuple(name for name in names or ("temperature",) if getattr(body, name) is None)


def checked_timeout(timeout_s: float | None) -> float | None:
    """Raises ParameterError when it is no time to wait."""
    if timeout_s is not None and not 0 < timeout_s <= _MAX_TIMEOUT_S:
        raise ParameterError("timeout", f"must be seconds above 0 and at most 1e9, not {timeout_s!r:.60}")
    return timeout_s


def keep_alive_s(value: float | str | None) -> float | None:
    """Raises ParameterError when it is neither a number nor a duration."""
    return None if value is None else parse_duration(value)


def common_fields(body: GenerationBody) -> dict[str, Any]:
    """Keyword arguments of a GenerateRequest."""
    return {
        "reproducible": bool(body.reproducible),
        "cache_prompt": body.cache_prompt is not False,
        "timeout_s": checked_timeout(body.timeout),
    }


def checked_model(name: str) -> str:
    """Raises ParameterError when it is empty."""
    if not name.strip():
        raise ParameterError("model", "is empty: give the name of a model, or 'default'")
    return name


def includes_usage(body: GenerationBody) -> bool:
    """Raises ParameterError for stream_options without a stream."""
    if body.stream_options is None:
        return False
    if not body.stream:
        raise ParameterError("stream_options", "goes with stream: true only")
    return bool(body.stream_options.include_usage)
