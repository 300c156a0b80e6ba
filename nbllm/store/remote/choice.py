"""Which files of a repository are the model that was asked for.

Where no quantization was named: the largest that fits into memory with room for a context. Weights of 16 or 32 bits
count only where a repository has no others: Q8_0 answers as well at half the size and twice the speed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nbllm.errors import InsufficientMemoryError
from nbllm.store.header import shown
from nbllm.store.parts import part_of
from nbllm.store.remote.errors import PullError
from nbllm.store.remote.names import HubName, is_safe_file

_LEAST_ROOM_BYTES = 512 * 10**6
_ROOM_SHARE = 0.1
"""What a context and the work take besides the weights: this share of them, and `_LEAST_ROOM_BYTES` at least."""
_LABEL = re.compile(
    r"(?:^|[._-])((?:UD-)?(?:IQ[1-4]_(?:XXS|XS|S|M|NL)|T?Q[1-8]_(?:[01]|K)(?:_(?:XXS|XS|S|M|L|XL))?(?:_\d_\d)?"
    r"|MXFP4(?:_MOE)?|B?F16|F32|FP16|FP32))$",
    re.IGNORECASE,
)
_DYNAMIC = "UD-"
"""How one publisher begins the labels of mixed quantizations."""
_WHOLE = ("F32", "FP32", "BF16", "F16", "FP16")
"""Not quantized."""
_PROJECTORS = ("F16", "BF16", "Q8_0", "F32")
"""The best first: f16 is what llama.cpp's own tools write."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository; `path` is its name below the repository, with slashes."""

    path: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class _Model:
    """A file, or the parts of a split one in order."""

    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def label(self) -> str:
        return quantization_label(self.files[0].name)

    @property
    def missing(self) -> str:
        """The first part that the repository lacks, "" if it has all."""
        part = part_of(Path(self.files[0].name))
        there = {file.name for file in self.files}
        names = [part.file_name(number) for number in range(1, min(part.total, 1000) + 1)] if part else []
        return next((name for name in names if name not in there), "")


def fits(size_bytes: int, memory_bytes: int) -> bool:
    """Whether a model of that size can be used with so much memory."""
    return size_bytes + max(_LEAST_ROOM_BYTES, int(size_bytes * _ROOM_SHARE)) <= memory_bytes


def chosen(files: Iterable[RemoteFile], wanted: HubName, memory_bytes: int) -> tuple[RemoteFile, ...]:
    """The files to get: the model's, in order, and its projector if the repository has one.

    Raises:
        PullError: there is no such model, or several may be meant; the message names them.
        InsufficientMemoryError: no quantization was named, and none fits into the memory.
    """
    usable = [file for file in files if file.name.casefold().endswith(".gguf") and is_safe_file(file.path)]
    models = _models(usable)
    if not models:
        raise PullError(
            f"{wanted.repository} has no GGUF files; look for a repository with -GGUF in its name at huggingface.co"
        )
    model = _named(models, wanted) if wanted.file else _quantized(models, wanted, memory_bytes)
    if model.missing:
        raise PullError(f"{wanted.repository} lacks {shown(model.missing)}, a part of the model; name another file")
    return (*model.files, *_projector(usable, model))


def quantization_label(file_name: str) -> str:
    """What the end of a file's name says of its weights, in capitals: "Q4_K_M"; "" if it does not."""
    part = part_of(Path(file_name))
    stem = part.stem if part else file_name[: -len(".gguf")]
    match = _LABEL.search(stem)
    return match[1].upper() if match else ""


def _models(files: Sequence[RemoteFile]) -> list[_Model]:
    groups: dict[tuple[str, str], list[RemoteFile]] = {}
    for file in files:
        if "mmproj" in file.name.casefold() or "imatrix" in file.name.casefold():
            continue
        part = part_of(Path(file.name))
        groups.setdefault((file.folder, f"{part.stem}/{part.total}" if part else file.name), []).append(file)
    return [_Model(tuple(sorted(group, key=lambda file: file.name))) for group in groups.values()]


def _named(models: Sequence[_Model], wanted: HubName) -> _Model:
    folded = wanted.file.casefold()
    exact = [model for model in models if wanted.file in (file.path for file in model.files)]
    found = exact or [model for model in models if folded in (file.path.casefold() for file in model.files)]
    if found:
        return found[0]
    if "mmproj" in folded:
        raise PullError(f"{shown(wanted.file)} is the projector of a model: name the model, and it comes along")
    raise PullError(f"{wanted.repository} has no file {shown(wanted.file)}; it has {_files(models)}")


def _quantized(models: Sequence[_Model], wanted: HubName, memory_bytes: int) -> _Model:
    if wanted.quantization:
        label = wanted.quantization.upper()
        named = [model for model in models if model.label == label]
        named = named or [model for model in models if model.label == f"{_DYNAMIC}{label}"]
        if not named:
            labels = ", ".join(sorted({model.label for model in models if model.label})) or _files(models)
            raise PullError(f"{wanted.repository} has no {shown(wanted.quantization)}; it has {labels}")
        return _only(named, wanted)
    labelled = [model for model in models if model.label]
    candidates = [model for model in labelled if model.label not in _WHOLE] or labelled
    if len(models) == 1 or not candidates:
        return _only(models, wanted)
    best = _largest_that_fits(candidates, wanted, memory_bytes)
    return _only([model for model in candidates if model.label == best.label], wanted)


def _largest_that_fits(models: Sequence[_Model], wanted: HubName, memory_bytes: int) -> _Model:
    fitting = [model for model in models if fits(model.size, memory_bytes)]
    if not fitting:
        least = min(models, key=lambda model: model.size)
        raise InsufficientMemoryError(
            f"no quantization in {wanted.repository} fits into the {_gb(memory_bytes)} that a model may use here: the "
            f"smallest, {least.label}, has {_gb(least.size)}; choose a smaller model, or get it nonetheless: "
            f"hf:{wanted.repository}:{least.label}"
        )
    return max(fitting, key=lambda model: model.size)


def _only(models: Sequence[_Model], wanted: HubName) -> _Model:
    if len(models) > 1:
        raise PullError(f"{wanted.repository} has several models; write the file: {_files(models, wanted)}")
    return models[0]


def _projector(files: Sequence[RemoteFile], model: _Model) -> tuple[RemoteFile, ...]:
    """Of those beside the model, or at the top of the repository, the one of the usual precision."""
    projectors = [file for file in files if "mmproj" in file.name.casefold()]
    near = [file for file in projectors if file.folder == model.files[0].folder]
    near = near or [file for file in projectors if not file.folder]

    def rank(file: RemoteFile) -> tuple[int, str]:
        label = quantization_label(file.name)
        return (_PROJECTORS.index(label) if label in _PROJECTORS else len(_PROJECTORS), file.path)

    return tuple(sorted(near, key=rank)[:1])


def _files(models: Sequence[_Model], wanted: HubName | None = None) -> str:
    prefix = f"hf:{wanted.repository}/" if wanted else ""
    names = [shown(f"{prefix}{model.files[0].path}") for model in models]
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
