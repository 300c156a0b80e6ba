"""All foreign stores together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nbllm.config import Config, stores
from nbllm.errors import ParameterError
from nbllm.store.foreign.gpt4all import gpt4all_models
from nbllm.store.foreign.huggingface import huggingface_models, repositories
from nbllm.store.foreign.lmstudio import lmstudio_models
from nbllm.store.foreign.look import Entry, Look
from nbllm.store.foreign.memory import total_memory
from nbllm.store.foreign.ollama import ollama_models, short_name

if TYPE_CHECKING:
    from nbllm.store.remote.names import HubName

PREFIXES: Mapping[str, str] = {"ollama": "ollama", "huggingface": "hf", "lmstudio": "lmstudio", "gpt4all": "gpt4all"}
"""What goes before a colon and a name to say that it is that store's."""
_MODELS: Mapping[str, Callable[[Look], dict[str, Entry]]] = {
    "ollama": ollama_models,
    "huggingface": huggingface_models,
    "lmstudio": lmstudio_models,
    "gpt4all": gpt4all_models,
}
_seen: dict[tuple[str, Path], tuple[Look, dict[str, Entry]]] = {}  # assigning an entry is atomic: threads need no lock


def store_models(store: str, config: Config) -> dict[str, Entry]:
    """The models of one store by their names there, none if the settings leave it out."""
    found: dict[str, Entry] = {}
    for folder in _folders(store, config):
        found = _in_folder(store, folder.absolute()) | found  # a name in an earlier folder stays
    return found


@dataclass(frozen=True, slots=True)
class Prefixed:
    """A store of PREFIXES, and a name there."""

    store: str
    name: str


def prefixed(text: str) -> Prefixed | None:
    """What a name says of where it is from; None for one that does not say."""
    prefix, colon, rest = text.partition(":")
    store = next((store for store, own in PREFIXES.items() if own == prefix.casefold()), None)
    if not colon or store is None:
        return None
    return Prefixed(store, short_name(rest) if store == "ollama" else rest)


def cached_model(text: str, config: Config) -> Entry | None:
    """What a hub name means among the files of the Hugging Face cache; None where it has none of the repository.

    Raises:
        ModelNotFoundError: it has some, but not that one, or several that may be meant.
        InsufficientMemoryError: no quantization was named, and none fits into the memory.
    """
    wanted = _hub_name(text)
    for folder in _folders("huggingface", config) if wanted is not None else ():
        for repository in repositories(Look(folder.absolute())):
            if wanted is not None and repository.name.casefold() == wanted.repository.casefold():
                return repository.meant(wanted, int(total_memory() * config.memory_fraction))
    return None


def _in_folder(store: str, folder: Path) -> dict[str, Entry]:
    """From the last look, if another would see the same."""
    known = _seen.get((store, folder))
    if known is not None and known[0].is_current():
        return known[1]
    look = Look(folder)
    found = _MODELS[store](look)
    _seen[store, folder] = (look, found)
    return found


def _hub_name(text: str) -> HubName | None:
    from nbllm.store.remote.names import hub_name

    try:
        return hub_name(text)
    except ParameterError:
        return None


def _folders(store: str, config: Config) -> tuple[Path, ...]:
    return stores.store_folders(store) if store in config.foreign_stores else ()
