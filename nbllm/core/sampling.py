"""How tokens are chosen, checked when it is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from nbllm.core.numbers import Range, as_number
from nbllm.errors import ParameterError

_INT_MAX = 2**31 - 1
_SEED_MAX = 2**32 - 2  # llama.cpp reads 0xFFFFFFFF as "choose one"
RANGES: Mapping[str, Range] = {
    "temperature": Range(float, 0.0, 100.0, "0 is greedy, 1 the model's own distribution, at most 100"),
    "top_p": Range(float, 0.0, 1.0, "from 0 to 1, 1 is off"),
    "top_k": Range(int, 0, _INT_MAX, f"from 0 to {_INT_MAX}, 0 is off"),
    "min_p": Range(float, 0.0, 1.0, "from 0 to 1, 0 is off"),
    "typical_p": Range(float, 0.0, 1.0, "from 0 to 1, 1 is off"),
    "repeat_penalty": Range(float, 0.01, 100.0, "from 0.01 to 100, 1 is off"),
    "repeat_last_n": Range(int, 0, 2**20, f"from 0 to {2**20} tokens, 0 is off"),
    "presence_penalty": Range(float, -2.0, 2.0, "from -2 to 2, 0 is off"),
    "frequency_penalty": Range(float, -2.0, 2.0, "from -2 to 2, 0 is off"),
    "max_tokens": Range(int, 0, _INT_MAX, f"from 0 to {_INT_MAX}"),
    "seed": Range(int, 0, _SEED_MAX, f"from 0 to {_SEED_MAX}"),
    "n": Range(int, 1, 128, "from 1 to 128"),
    "top_logprobs": Range(int, 0, 20, "from 0 to 20"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How tokens are chosen. OpenAI's names where OpenAI has one, llama.cpp's where it has not.

    None means: the GGUF's own recommendation, else the engine's stated default (`engine.defaults`).

    Args:
        temperature: 0 is greedy.
        max_tokens: None runs a chat to the end of its turn within what is left of the context, and legacy
            completion for 16 tokens; 0 evaluates the prompt and generates nothing.
        repeat_penalty: llama.cpp's penalty over the last `repeat_last_n` tokens, prompt included.
        presence_penalty: OpenAI's: taken once from the logit of every token generated so far.
        frequency_penalty: OpenAI's: taken once for each time a token has been generated.
        logit_bias: token id to a number from -100 (never appears) to 100 (nothing else does).
        stop: texts that end the answer and are not part of it; a string or a sequence of strings, none of them empty.
        seed: None takes a random one, which the answer reports.
        logprobs: report the model's own log-probability of each token, before any bias or truncation.
        top_logprobs: how many alternatives to report with each, 0 to 20.
        n: how many answers to give to the one prompt.

    Raises:
        ParameterError: a value is of a wrong type or out of range; the message names the field and what is allowed.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: bool = False
    top_logprobs: int = 0
    n: int = 1

    def __post_init__(self) -> None:
        for name, allowed in RANGES.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, allowed.checked(name, value))
        if not isinstance(self.logprobs, bool):
            raise ParameterError("logprobs", f"must be True or False, not {self.logprobs!r}")
        if self.top_logprobs and not self.logprobs:
            raise ParameterError("top_logprobs", "needs logprobs=True")
        object.__setattr__(self, "stop", _checked_stop(self.stop))
        object.__setattr__(self, "logit_bias", _checked_bias(self.logit_bias))

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> SamplingParams:
        """Build from keyword options; an unknown name raises ParameterError with the nearest known one."""
        known = [spec.name for spec in fields(cls)]
        for name in options:
            if name not in known:
                raise ParameterError(name, unknown_option(name, known))
        given = {name: value for name, value in options.items() if value is not None}
        return cls(**given)

    def or_else(self, defaults: SamplingParams) -> SamplingParams:
        """These parameters, with what is None here taken from `defaults`."""
        missing = {spec.name: getattr(defaults, spec.name) for spec in fields(self) if getattr(self, spec.name) is None}
        return replace(self, **missing)


def unknown_option(name: str, known: Sequence[str]) -> str:
    """Say that `name` is not an option, and which of the `known` ones may have been meant."""
    import difflib

    close = difflib.get_close_matches(str(name), known, n=1)
    if close:
        return f"is not an option; did you mean {close[0]}?"
    return f"is not an option; the options are {', '.join(sorted(known))}"


def _checked_stop(stop: object) -> tuple[str, ...]:
    texts = (stop,) if isinstance(stop, str) else stop
    if not isinstance(texts, tuple | list) or not all(isinstance(text, str) for text in texts):
        raise ParameterError("stop", f"must be a string or a list of strings, not {stop!r:.100}")
    if "" in texts:
        raise ParameterError("stop", "an empty string would stop every answer at once; leave it out")
    return tuple(dict.fromkeys(texts))


def _checked_bias(bias: object) -> dict[int, float]:
    if not isinstance(bias, Mapping):
        raise ParameterError("logit_bias", f"must map token ids to numbers, not {bias!r:.100}")
    checked: dict[int, float] = {}
    allowed = Range(float, -100.0, 100.0, "from -100 (never) to 100 (only this)")
    for key, value in bias.items():
        token = _token_id(key)
        checked[token] = allowed.checked(f"logit_bias[{key!r}]", value)
    return checked


def _token_id(key: object) -> int:
    """OpenAI's JSON has token ids as strings."""
    try:
        number = as_number(int, int(key) if isinstance(key, str) else key)
    except ValueError:
        number = None
    token = -1 if number is None else int(number)
    if token < 0:
        raise ParameterError("logit_bias", f"{key!r:.100} is not a token id")
    return token
