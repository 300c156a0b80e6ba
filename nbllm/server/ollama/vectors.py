"""From Ollama's requests for vectors to ours: `POST /api/embed` and the older `POST /api/embeddings`."""

from __future__ import annotations

from dataclasses import dataclass

from nbllm.errors import ParameterError
from nbllm.server.ollama.options import Room, room, unknown_options
from nbllm.wire.decoding import unknown_keys
from nbllm.wire.ollama.shapes import EmbedBody, EmbeddingsBody, model_of, parsed
from nbllm.wire.openai.embeddings import DIMENSIONS
from nbllm.wire.openai.lora import Switch, switches
from nbllm.wire.openai.sampling import keep_alive_s

_MOST_TEXTS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorCall:
    """A request for vectors.

    Attributes:
        texts: none at all loads the model.
        unit: whether the vectors have the length 1.
        lora: which of the model's adapters to compute with; None is as the model is.
    """

    model: str
    texts: tuple[str, ...]
    unit: bool
    room: Room
    dimensions: int | None = None
    keep_alive: float | None = None
    unknown: tuple[str, ...] = ()
    lora: tuple[Switch, ...] | None = None


def parse_embed(data: bytes) -> VectorCall:
    """Read a request. Raises as `calls.parse_generate` does."""
    body, raw = parsed(data, EmbedBody)
    model = model_of(body)
    texts = (body.input,) if isinstance(body.input, str) else tuple(body.input or ())
    if len(texts) > _MOST_TEXTS:
        raise ParameterError("input", f"has {len(texts):,} texts; at most {_MOST_TEXTS:,} are taken")
    if isinstance(body.input, list) and "" in texts:
        raise ParameterError(f"input[{texts.index('')}]", "is empty: there is nothing to embed")
    return VectorCall(
        model=model,
        texts=tuple(text for text in texts if text),
        unit=True,
        room=room(body.options, body.truncate),
        dimensions=None if body.dimensions is None else int(DIMENSIONS.checked("dimensions", body.dimensions)),
        keep_alive=keep_alive_s(body.keep_alive),
        unknown=unknown_keys(raw, EmbedBody) + unknown_options(body.options),
        lora=switches(body.lora),
    )


def parse_embeddings(data: bytes) -> VectorCall:
    """Read a request of the older kind. Raises as `calls.parse_generate` does."""
    body, raw = parsed(data, EmbeddingsBody)
    return VectorCall(
        model=model_of(body),
        texts=(body.prompt,) if body.prompt else (),
        unit=False,
        room=room(body.options, None),
        keep_alive=keep_alive_s(body.keep_alive),
        unknown=unknown_keys(raw, EmbeddingsBody) + unknown_options(body.options),
        lora=switches(body.lora),
    )
