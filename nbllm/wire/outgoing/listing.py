"""What a server says of its models: the answers of GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nbllm.wire.outgoing.parsing import count, entries, text

Kind = Literal["nbllm", "llamacpp", "vllm", "openai", "other", "unknown"]

_KINDS: Mapping[str, Kind] = {"nbllm": "nbllm", "llamacpp": "llamacpp", "vllm": "vllm"}
_MOST_MODELS = 10_000
_VERSION = re.compile(r"v?(\d{1,6})\.(\d{1,6})")


@dataclass(frozen=True, slots=True)
class Server:
    """What program answers, as far as its answers have shown: most ignore in silence what they do not know.

    Attributes:
        kind: "unknown" until it was asked, "other" when its answer named no program that is known here.
        version: of vLLM, whose names for constraints changed; empty when unknown.
    """

    kind: Kind = "unknown"
    version: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """One entry of a server's list; 0 where it does not say."""

    name: str
    kind: Kind = "other"
    context_length: int = 0
    trained_length: int = 0
    vocabulary_size: int = 0
    parameters: int = 0
    size_bytes: int = 0


def served_models(body: object) -> list[ServedModel] | None:
    """The models of a list, or the only one of a single entry; None when the answer is neither."""
    if not isinstance(body, dict):
        return None
    if "data" not in body and not text(body, "id"):
        return None
    listed = entries(body, "data") if "data" in body else [body]
    return [_served(entry) for entry in listed[:_MOST_MODELS] if text(entry, "id")]


def version(body: object) -> tuple[int, ...]:
    """The first two numbers of vLLM's GET /version, () when there are none."""
    match = _VERSION.match(text(body, "version"))
    return () if match is None else (int(match[1]), int(match[2]))


def _served(entry: dict[str, Any]) -> ServedModel:
    meta = entry.get("meta")
    return ServedModel(
        name=entry["id"],
        kind=_KINDS.get(str(entry.get("owned_by")), "other"),
        context_length=count(entry, "context_length") or count(entry, "max_model_len") or count(meta, "n_ctx"),
        trained_length=count(meta, "n_ctx_train"),
        vocabulary_size=count(meta, "n_vocab"),
        parameters=count(meta, "n_params"),
        size_bytes=count(meta, "size"),
    )
