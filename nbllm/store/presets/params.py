"""The parameters of a preset, by Ollama's names and by ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nbllm.core import RANGES, SamplingParams, unknown_option
from nbllm.core.numbers import Range
from nbllm.core.presets import Preset
from nbllm.errors import ParameterError
from nbllm.store.header import shown

OLLAMAS: Mapping[str, str] = {"max_tokens": "num_predict", "context_length": "num_ctx", "threads": "num_thread"}
"""What Ollama calls ours, where it has another name."""
WITHOUT_EFFECT = frozenset(
    ("num_batch", "num_gpu", "main_gpu", "use_mmap", "use_mlock", "low_vram", "numa", "f16_kv", "vocab_only", "num_gqa")
) | {
    *("logits_all", "embedding_only", "draft_num_predict", "num_keep", "mirostat", "mirostat_eta", "mirostat_tau"),
    *("tfs_z", "penalize_newline", "rope_frequency_base", "rope_frequency_scale", "requires", "renderer", "parser"),
}
"""Ollama's, which only tell how a model is computed, or which Ollama has given up."""
MAX_STOPS = 64
_UNLIMITED = int(RANGES["max_tokens"].high)
_MOST_LAST_N = int(RANGES["repeat_last_n"].high)
_NUM_SEEDS = int(RANGES["seed"].high) + 1
_CONTEXT = Range(int, 1, 2**20, "from 1 to 1,048,576 tokens")
_THREADS = Range(int, 0, 1024, "from 1 to 1024, 0 is as usual")
_WHOLE = Range(int, -(2**63), 2**64 - 1, "a whole number of 64 bits")
_NUMBER = re.compile(r"[+-]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,4})?", re.ASCII)
_SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "typical_p", "repeat_penalty", "repeat_last_n"),
    *("presence_penalty", "frequency_penalty", "max_tokens", "seed"),
)
_OURS = {theirs: ours for ours, theirs in OLLAMAS.items()}
_KNOWN = (*_SAMPLING, "stop", "context_length", "threads", *_OURS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """What parameters say. The attributes are a Preset's."""

    sampling: SamplingParams = field(default_factory=SamplingParams)
    context_length: int | None = None
    threads: int | None = None
    ignored: Mapping[str, str] = field(default_factory=dict)


def read(params: Mapping[str, Any], at: str = "") -> Params:
    """Check parameters whose values are numbers, texts of numbers, or for `stop` texts.

    Args:
        at: what goes before a name in an error: "parameters.".

    Raises:
        ParameterError: an unknown name, a wrong value, or one parameter under two names.
    """
    values: dict[str, Any] = {}
    ignored: dict[str, str] = {}
    for name, value in params.items():
        label = f"{at}{shown(name)}"
        if name in WITHOUT_EFFECT:
            ignored[name] = _as_written(label, value)
            continue
        if name not in _KNOWN:
            raise ParameterError(label, unknown_option(str(name)[:100], _KNOWN))
        ours = _OURS.get(name, name)
        if ours in values:
            raise ParameterError(label, f"is there as {ours} and as {OLLAMAS.get(ours, ours)}; leave one of them out")
        values[ours] = _READ[name](label, value) if name in _READ else number(label, value, RANGES[name])
    length, threads = values.pop("context_length", None), values.pop("threads", None)
    return Params(sampling=SamplingParams(**values), context_length=length, threads=threads or None, ignored=ignored)


def written(preset: Preset) -> dict[str, Any]:
    """The preset's parameters by our names, as `read` takes them; those without effect are left out."""
    given = {name: getattr(preset.sampling, name) for name in _SAMPLING}
    given |= {"context_length": preset.context_length, "threads": preset.threads}
    found = {name: value for name, value in given.items() if value is not None}
    return {**found, "stop": list(preset.sampling.stop)} if preset.sampling.stop else found


def number(label: str, value: object, allowed: Range) -> Any:
    """A number, or the text of one. Raises ParameterError."""
    if isinstance(value, str):
        return allowed.checked(label, _number_of(label, value))
    if not isinstance(value, int | float):
        raise ParameterError(label, f"must be a number, not {type(value).__name__}")
    if isinstance(value, int) and value.bit_length() > 64:  # perhaps too long to be printed
        raise ParameterError(label, f"is out of range: {allowed.doc}")
    return allowed.checked(label, value)


def is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None


def _number_of(label: str, text: str) -> float | int:
    plain = text.strip()
    if not is_number(plain):
        raise ParameterError(label, f"must be a number, not {shown(text)!r:.100}")
    try:
        return int(plain)
    except ValueError:
        return float(plain)


def _as_written(label: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 64:
        raise ParameterError(label, "has too many digits")
    if not isinstance(value, str | int | float):
        raise ParameterError(label, f"must be a text or a number, not {type(value).__name__}")
    return str(value)


def _whole(label: str, value: object) -> int:
    return int(number(label, value, _WHOLE))


def _num_predict(label: str, value: object) -> int:
    """Ollama's -1 is without end, its -2 to the end of the context, and its 0 no limit either."""
    asked = _whole(label, value)
    return min(asked, _UNLIMITED) if asked > 0 else _UNLIMITED


def _seed(label: str, value: object) -> int | None:
    """A negative one means any."""
    asked = _whole(label, value)
    return asked % _NUM_SEEDS if asked >= 0 else None


def _top_k(label: str, value: object) -> int:
    """Off at 0 and below."""
    return min(max(0, _whole(label, value)), int(RANGES["top_k"].high))


def _repeat_last_n(label: str, value: object) -> int:
    """The whole context at -1."""
    asked = _whole(label, value)
    return _MOST_LAST_N if asked < 0 else min(asked, _MOST_LAST_N)


def _stop(label: str, value: object) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text for text in texts):
        raise ParameterError(label, "must be a text or a list of texts, none of them empty")
    if len(texts) > MAX_STOPS:
        raise ParameterError(label, f"has {len(texts):,} texts; {MAX_STOPS} are the most")
    return tuple(texts)


def _context(label: str, value: object) -> int:
    return int(number(label, value, _CONTEXT))


def _threads(label: str, value: object) -> int:
    return int(number(label, value, _THREADS))


_READ: Mapping[str, Callable[[str, object], Any]] = {
    "num_predict": _num_predict,
    "seed": _seed,
    "top_k": _top_k,
    "repeat_last_n": _repeat_last_n,
    "stop": _stop,
    "num_ctx": _context,
    "context_length": _context,
    "num_thread": _threads,
    "threads": _threads,
}
