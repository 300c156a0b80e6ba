"""The files of one model: one, or the parts of a split one, `name-00001-of-00003.gguf` and on."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from nbllm.store.header import shown

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.gguf", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Part:
    """Where in a split model a file belongs, as its name says; `number` counts from 1."""

    stem: str
    number: int
    total: int

    def file_name(self, number: int) -> str:
        return f"{self.stem}-{number:05d}-of-{self.total:05d}.gguf"


def part_of(path: Path) -> Part | None:
    """None for a file that is a whole model."""
    match = _PART.fullmatch(path.name)
    if match is None:
        return None
    part = Part(match["stem"], int(match["number"]), int(match["total"]))
    return part if 1 <= part.number <= part.total and part.total > 1 else None


def first_part(path: Path) -> Path:
    """The file that llama.cpp wants to be given: the first of a split model, else `path` itself."""
    part = part_of(path)
    return path if part is None else path.with_name(part.file_name(1))


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a model that are there, in order, and the names of those that are not."""

    paths: tuple[Path, ...]
    missing: tuple[str, ...] = ()

    @property
    def problem(self) -> str:
        if not self.missing:
            return ""
        total = len(self.paths) + len(self.missing)
        return (
            f"{len(self.missing)} of its {total} parts not there: {shown(self.missing[0])} is the first that is missing"
        )


def model_files(path: Path) -> ModelFiles:
    """All the files of the model that `path` is, or is a part of."""
    part = part_of(path)
    if part is None:
        return ModelFiles((path,))
    names = [part.file_name(number) for number in range(1, part.total + 1)]
    try:
        there = set(os.listdir(path.parent))
    except (OSError, ValueError):  # ValueError: a NUL in the path
        there = {path.name}
    found = tuple(path.with_name(name) for name in names if name in there)
    return ModelFiles(found, tuple(name for name in names if name not in there))
