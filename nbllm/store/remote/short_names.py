"""The shipped table of short names: well-known small models, where the hub has them, and under which licence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nbllm.store.header import shown
from nbllm.store.remote.choice import fits
from nbllm.store.remote.names import HubName

_FILE = Path(__file__).with_name("short_names.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortName:
    """A model of the table.

    Attributes:
        licence: by its identifier on the hub.
        sha256: that the file must have; "" if the hub's word is all there is.
    """

    name: str
    repository: str
    file: str
    licence: str
    size_bytes: int
    sha256: str = ""

    @property
    def hub_name(self) -> HubName:
        owner, _, repo = self.repository.partition("/")
        return HubName(owner=owner, repo=repo, file=self.file, sha256=self.sha256)


def short_name(text: str) -> ShortName | None:
    """The model that a name means in any case, with or without the tag "latest"; None if the table has none."""
    name = text.strip().casefold().removesuffix(":latest")
    return _table().get(_aliases().get(name, name))


def fitting(memory_bytes: int) -> list[ShortName]:
    """Those that fit into so much memory, the smallest first."""
    found = (model for model in _table().values() if fits(model.size_bytes, memory_bytes))
    return sorted(found, key=lambda model: (model.size_bytes, model.name))


def closest(text: str) -> list[str]:
    """Names of the table that a wrong one may have meant, at most 3."""
    import difflib

    return difflib.get_close_matches(text[:200].casefold(), [*_table(), *_aliases()], n=3, cutoff=0.5)


def no_model(text: str) -> str:
    """For a name that means nothing anywhere."""
    meant = f"the closest names: {', '.join(close)}; " if (close := closest(text)) else ""
    return f"no model {shown(text)!r} to pull: {meant}any other GGUF of the hub is hf:org/repo or hf:org/repo:Q4_K_M"


@cache
def _contents() -> Mapping[str, Mapping[str, object]]:
    import tomllib

    return tomllib.loads(_FILE.read_text(encoding="utf-8"))


@cache
def _table() -> Mapping[str, ShortName]:
    models = _contents()["models"]
    return {name: ShortName(name=name, **entry) for name, entry in models.items()}  # type: ignore[arg-type]


@cache
def _aliases() -> Mapping[str, str]:
    return {name: str(target) for name, target in _contents()["aliases"].items()}
