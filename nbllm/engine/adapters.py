"""LoRA files, checked before llama.cpp sees them: what it finds wrong too late ends the process, kernel and all."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from nbllm.core import Adapter
from nbllm.errors import ModelLoadError, ModelNotFoundError, ParameterError
from nbllm.store.ggml import TENSOR_TYPES
from nbllm.store.header import shown
from nbllm.store.tensors import Tensor, TensorTable, model_tensors, read_tensors

MOST_ADAPTERS = 8
"""In one set: each adds operations to the graph, for which llama.cpp sets so much room aside and no more."""
_MOST_KNOWN = 64
_F32_VALUE = 6  # GGUF's number of the type of a value
_NVFP4 = 40
_INFINITE: dict[int, tuple[str, int]] = {0: ("<u4", 0x7F800000), 1: ("<u2", 0x7C00), 30: ("<u2", 0x7F80)}
"""By ggml's type, which those of adapters are: how wide a number is, and the bits that are set if it is not finite."""
_Q8_0, _Q8_0_BYTES = 8, 34
_logger = logging.getLogger("nbllm.engine")


class Stamp(NamedTuple):
    """What changes when a file does."""

    size: int
    changed_ns: int
    inode: int


class LoraFile(NamedTuple):
    """One adapter of a set, with the real path of its file, and which version of that it is."""

    adapter: Adapter
    stamp: Stamp


AdapterSet = tuple[LoraFile, ...]
"""Adapters whose sum a context computes with, ordered by path and each there once."""


class AdapterFiles:
    """Tells what a request's adapters are. Safe on any thread.

    Args:
        check: raises ModelLoadError for a file that does not fit the model; it is read again only when it has changed.
    """

    def __init__(self, check: Callable[[str], None]) -> None:
        self._check = check
        self._lock = threading.Lock()
        self._checked: dict[str, Stamp] = {}

    def set_of(self, adapters: Sequence[Adapter]) -> AdapterSet:
        """The files as they are now. One that is there twice counts with the sum of its scales, one of 0 not at all.

        Raises:
            ModelNotFoundError: a file is not there.
            ModelLoadError: one is damaged, or made for another model.
            ParameterError: there are too many.
        """
        scales: dict[str, float] = {}
        stamps: dict[str, Stamp] = {}
        for adapter in adapters:
            path = os.path.realpath(adapter.path)
            stamps[path] = self._fitting(path, adapter.path)
            scales[path] = scales.get(path, 0.0) + adapter.scale
        chosen = tuple(LoraFile(Adapter(path, scale), stamps[path]) for path, scale in sorted(scales.items()) if scale)
        if len(chosen) > MOST_ADAPTERS:
            raise ParameterError("lora", f"{len(chosen)} adapters at once are too many: {MOST_ADAPTERS} are possible")
        return chosen

    def check_unchanged(self, chosen: AdapterSet) -> None:
        """Raise ModelLoadError if a file is no longer what was checked."""
        for adapter, stamp in chosen:
            if _stamp(adapter.path, adapter.path) != stamp:
                raise ModelLoadError(f"{shown(adapter.path)}: changed while it was waiting to be read; ask again")

    def _fitting(self, path: str, typed: str) -> Stamp:
        stamp = _stamp(path, typed)
        with self._lock:
            if self._checked.get(path) == stamp:
                return stamp
        self._check(path)
        with self._lock:
            if len(self._checked) >= _MOST_KNOWN:
                self._checked.clear()
            self._checked[path] = stamp
        return stamp


def _stamp(path: str, typed: str) -> Stamp:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError) as exc:
        raise ModelNotFoundError(f"there is no LoRA adapter {shown(typed)}: give the path of a GGUF file") from exc
    except OSError as exc:
        raise ModelLoadError(f"{shown(typed)}: cannot be read: {exc.strerror or exc}") from exc
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino)


class AdapterCheck:
    """Whether an adapter fits a model, by the tables of both files. A call raises ModelLoadError if it does not.

    Args:
        model_path: the base; its table is read at the first call.
    """

    def __init__(self, model_path: str) -> None:
        self._model_path = model_path

    def __call__(self, path: str) -> None:
        if os.path.isdir(path):
            raise ModelLoadError(f"{shown(path)}: is a folder; give the path of a LoRA adapter in GGUF")
        table = read_tensors(path)
        problem = self._misfit(table) or next(filter(None, self._mispairings(table)), "") or _unusable(table)
        if problem:
            raise ModelLoadError(f"{shown(path)}: {problem}")
        ignored = sum(_is_ignored(tensor.name) for tensor in table.tensors)
        if ignored:
            _logger.warning("%s: llama.cpp leaves its %d norm vectors out", shown(path), ignored)

    @cached_property
    def _base(self) -> dict[str, Tensor]:
        return model_tensors(self._model_path)

    @cached_property
    def _family(self) -> str:
        return read_tensors(self._model_path).header.text("general.architecture")

    def _misfit(self, table: TensorTable) -> str:
        """What is wrong with the adapter as a whole, as far as its values tell; "" if nothing is."""
        header = table.header
        kind, family = header.text("general.type"), header.text("general.architecture")
        if kind != "adapter":
            return "is no LoRA adapter but a model, or something else; give a GGUF of convert_lora_to_gguf.py"
        if header.text("adapter.type") != "lora":
            return f"is an adapter of the type {shown(header.text('adapter.type')) or 'unknown'}; only lora can be used"
        if family != self._family:
            return f"was made for a model of the family {shown(family) or 'unknown'}, and this one is {self._family}"
        alpha = header.values.get("adapter.lora.alpha", 0.0)
        if not isinstance(alpha, float) or not math.isfinite(alpha):
            return f"is damaged: adapter.lora.alpha is {shown(alpha)}"
        if table.kinds.get("adapter.lora.alpha", _F32_VALUE) != _F32_VALUE:
            return "is damaged: adapter.lora.alpha is no 32-bit number"
        if "adapter.alora.invocation_tokens" in table.kinds:
            return "is an activated LoRA, which counts from certain words of a prompt on; that is not supported"
        return "" if any(map(_target, table.tensors)) else "changes no matrix of a model"

    def _mispairings(self, table: TensorTable) -> Iterator[str]:
        pairs: dict[str, dict[str, Tensor]] = {}
        for tensor in table.tensors:
            target = _target(tensor)
            if target:
                pairs.setdefault(target, {})[tensor.name[-1]] = tensor
            elif not _is_ignored(tensor.name):
                yield f"its tensor {shown(tensor.name)} is no part of a LoRA"
        for name, pair in pairs.items():
            if len(pair) < 2:
                yield f"half of the pair for {shown(name)} is missing"
            elif name not in self._base:
                yield f"changes {shown(name)}, which this model does not have; was it made for another one?"
            else:
                yield self._mismatch(name, pair["a"], pair["b"])

    def _mismatch(self, name: str, a: Tensor, b: Tensor) -> str:
        base = self._base[name]
        flipped = name.endswith("token_embd.weight")
        wanted = (base.shape[1], base.shape[0]) if flipped else base.shape[:2]
        rank = b.shape[0]
        fits = (a.shape[0] if not flipped else a.shape[1], b.shape[1]) == wanted
        if not fits or rank < 1 or rank != (a.shape[0] if flipped else a.shape[1]):
            sizes = f"{_size(a)} and {_size(b)}"
            return f"its matrices for {shown(name)} are {sizes}, which does not fit the model's {_size(base)}"
        if not base.is_matrix or a.shape[2:] != base.shape[2:] or b.shape[2:] != base.shape[2:]:
            return f"changes {shown(name)}, which is no matrix that a LoRA can change"
        if flipped and "output.weight" not in self._base:
            return f"changes {shown(name)}, which this model also makes its output with; llama.cpp cannot do that"
        if base.kind == _NVFP4:
            return f"changes {shown(name)}, whose type NVFP4 llama.cpp cannot add a LoRA to"
        return ""


def _target(tensor: Tensor) -> str:
    """The name of the matrix that the tensor is half of a change of, "" for another tensor."""
    return tensor.name[:-7] if tensor.name.endswith((".lora_a", ".lora_b")) else ""


def _is_ignored(name: str) -> bool:
    """What llama.cpp passes over: an adapter mostly works without."""
    return name.endswith("_norm.weight")


def _size(tensor: Tensor) -> str:
    last = max([2, *(place + 1 for place, length in enumerate(tensor.shape) if length != 1)])
    return " x ".join(map(str, tensor.shape[:last]))


def _unusable(table: TensorTable) -> str:
    """What is wrong with the numbers. One that is not finite would make every answer the same token for ever."""
    if sum(tensor.num_bytes for tensor in table.tensors) > table.header.size_bytes:
        return "is damaged: its tensors overlap"
    with open(table.header.path, "rb") as file:
        for tensor in table.tensors:
            if not _target(tensor):
                continue
            if tensor.kind not in (*_INFINITE, _Q8_0):
                known = TENSOR_TYPES.get(tensor.kind)
                name = known.name if known is not None else f"type {tensor.kind}"
                return f"its weights are {name}; convert the adapter with --outtype f16"
            file.seek(tensor.start)
            data = file.read(tensor.num_bytes)
            if len(data) < tensor.num_bytes:
                return "truncated: it became shorter while it was read"
            if not _is_finite(data, tensor.kind):
                return f"is damaged: {shown(tensor.name)} has numbers that are not finite"
    return ""


def _is_finite(data: bytes, kind: int) -> bool:
    import numpy as np

    if kind == _Q8_0:  # each block begins with its scale, an f16
        blocks = np.frombuffer(data, np.uint8).reshape(-1, _Q8_0_BYTES)[:, :2]
        numbers, bits = np.ascontiguousarray(blocks).view("<u2"), _INFINITE[1][1]
    else:
        width, bits = _INFINITE[kind]
        numbers = np.frombuffer(data, width)
    return not bool(((numbers & bits) == bits).any())


def total_bytes(chosen: AdapterSet) -> int:
    return sum(file.stamp.size for file in chosen)
