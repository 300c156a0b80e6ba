"""Answers that `--cache` keeps on disk, by everything that makes them what they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbllm.core.presets import applied
from nbllm.session.cache import AnswerCache, default_folder
from nbllm.session.cachekey import key, versions
from nbllm.store import model_hash

if TYPE_CHECKING:
    from nbllm.core import Constraint, GenerateRequest
    from nbllm.core.presets import Preset
    from nbllm.session.response import Response


@dataclass(frozen=True, slots=True)
class Stored:
    """The place of one request's answer.

    Attributes:
        file_hash: of the model's file or files.
    """

    cache: AnswerCache
    key: str
    constraint: Constraint | None
    file_hash: str

    @classmethod
    def at(cls, model_path: str, request: GenerateRequest, preset: Preset | None = None) -> Stored:
        file_hash = model_hash(model_path)
        request = request if preset is None else applied(preset, request)
        found = key(file_hash=file_hash, request=request, version=versions())
        return cls(AnswerCache(default_folder()), found, request.constraint, file_hash)

    def find(self) -> tuple[Response, Mapping[str, Any]] | None:
        """The answer, and what was noted of it."""
        return self.cache.find(self.key, self.constraint)

    def keep(self, response: Response, notes: Mapping[str, Any]) -> None:
        self.cache.put(self.key, response, notes)
