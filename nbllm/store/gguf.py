"""What a GGUF says of itself, told without loading it."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from nbllm.core import ModelInfo
from nbllm.errors import ModelLoadError
from nbllm.store.ggml import FILE_TYPE_GUESSED, FILE_TYPES
from nbllm.store.header import MAX_COUNT, GgufHeader, incompleteness, read_header, read_metadata, shown
from nbllm.store.parts import ModelFiles, model_files, part_of
from nbllm.store.reader import ArrayOf, DamagedError

__all__ = ["ArrayOf", "GgufHeader", "check_complete", "model_info", "read_metadata"]

_ARCHITECTURE = re.compile(r"[\w.-]{1,64}", re.ASCII)
_SIZE_LABEL = re.compile(r"(?:(\d{1,6})x)?(\d{1,6}(?:\.\d{1,6})?)([KMBT])", re.ASCII)
_UNITS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_MAX_LAYERS = 4096  # a hostile count must not become a long tuple
_NOT_MODELS = {
    "adapter": "is a LoRA adapter, not a model",
    "mmproj": "is the projector of a multimodal model, not the model",
    "imatrix": "is an importance matrix, not a model",
}


def model_info(path: str | os.PathLike[str], name: str) -> ModelInfo:
    """Describe the model at `path`; what is wrong with it is told in `problem`, never raised.

    Of a split model, only the first part is read; that the others are there is checked.
    """
    path = Path(path)
    files = model_files(path)
    info = ModelInfo(name=name, path=str(path), size_bytes=_size_bytes(files))
    try:
        header = read_header(path)
    except DamagedError as exc:
        return replace(info, problem=str(exc))
    return _described(replace(info, problem=_problem(header, files)), header)


def check_complete(path: str | os.PathLike[str]) -> None:
    """Check that all files of the model are there, well-formed, and long enough for their tensors.

    Raises:
        ModelLoadError: they are not; the message names the file and, if it is cut, both sizes.
    """
    files = model_files(Path(path))
    if files.problem:
        raise ModelLoadError(f"{shown(path)}: {files.problem}")
    for part in files.paths:
        try:
            problem = incompleteness(read_header(part))
        except DamagedError as exc:
            raise ModelLoadError(f"{shown(part)}: {exc}") from exc
        if problem:
            raise ModelLoadError(f"{shown(part)}: {problem}")


def _size_bytes(files: ModelFiles) -> int:
    total = 0
    for path in files.paths:
        try:
            total += path.stat().st_size
        except (OSError, ValueError):
            continue  # the read that follows says why
    return total


def _problem(header: GgufHeader, files: ModelFiles) -> str:
    kind = header.text("general.type")
    is_split = part_of(header.path) is not None
    if not _architecture(header):
        return "is damaged: general.architecture does not name its family"
    if kind in _NOT_MODELS:
        return _NOT_MODELS[kind]
    if header.integer("split.count") > 1 and not is_split:
        return "is a part of a split model but lost the -00001-of-0000N in its name; restore the name"
    if not header.tensor_count and not is_split:
        return "has no weights, only a vocabulary"
    return files.problem or incompleteness(header)


def _described(info: ModelInfo, header: GgufHeader) -> ModelInfo:
    family = _architecture(header)
    return replace(
        info,
        architecture=family,
        quantization=_quantization(header),
        parameters=_parameters(header),
        context_length=header.integer(f"{family}.context_length"),
        vocabulary_size=_vocabulary_size(header, family),
        embedding_length=header.integer(f"{family}.embedding_length"),
        kv_bytes_per_token=_kv_bytes_per_token(header, family),
        sliding_window=header.integer(f"{family}.attention.sliding_window"),
        has_chat_template=bool(header.text("tokenizer.chat_template").strip()),
    )


def _architecture(header: GgufHeader) -> str:
    name = header.text("general.architecture")
    return name if _ARCHITECTURE.fullmatch(name) else ""


def _quantization(header: GgufHeader) -> str:
    number = header.values.get("general.file_type")
    return FILE_TYPES.get(number & ~FILE_TYPE_GUESSED, "") if isinstance(number, int) else ""


def _parameters(header: GgufHeader) -> int:
    """Exactly, or as rounded as the size label has it: "135M", "8x7B", "30B-A3B" (30 billion, 3 of them active)."""
    count = header.integer("general.parameter_count")
    label = _SIZE_LABEL.match(header.text("general.size_label"))
    if count or label is None:
        return count
    experts, number, unit = label.groups()
    return _plausible(round(int(experts or 1) * float(number) * _UNITS[unit]))


def _vocabulary_size(header: GgufHeader, family: str) -> int:
    tokens = header.values.get("tokenizer.ggml.tokens")
    return tokens.length if isinstance(tokens, ArrayOf) else header.integer(f"{family}.vocab_size")


def _kv_bytes_per_token(header: GgufHeader, family: str) -> int:
    """Of f16 keys and values over all layers; 0 if the header does not tell.

    Layers that share another's cache are counted as well, and so are those with a sliding window: an upper bound.
    """
    layers = header.integer(f"{family}.block_count")
    heads_key = f"{family}.attention.head_count"
    heads = _per_layer(header, heads_key, layers)
    kv_heads = _per_layer(header, f"{heads_key}_kv", layers) or heads
    default = header.integer(f"{family}.embedding_length") // heads[0] if heads and heads[0] else 0
    key_length = header.integer(f"{family}.attention.key_length") or default
    value_length = header.integer(f"{family}.attention.value_length") or default
    return _plausible(sum(kv_heads) * (key_length + value_length) * 2)


def _plausible(count: int) -> int:
    return count if count <= MAX_COUNT else 0


def _per_layer(header: GgufHeader, key: str, layers: int) -> tuple[int, ...]:
    """One number a layer: the header has one for all or, in mixed models, an array (0 for a layer without a cache)."""
    value = header.values.get(key)
    if isinstance(value, tuple):
        return tuple(max(0, int(number)) for number in value[:layers] if isinstance(number, int))
    return (header.integer(key),) * min(layers, _MAX_LAYERS) if header.integer(key) else ()
