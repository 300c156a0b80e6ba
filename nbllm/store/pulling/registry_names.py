"""What a person writes for a model of Ollama's registry.

gemma:7b, someone/model:tag      as Ollama has them, where the shipped table has no such name
ollama:gemma:7b                  the registry's in any case
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from nbllm.errors import ParameterError
from nbllm.store.foreign import PREFIXES, prefixed
from nbllm.store.foreign.ollama import short_name
from nbllm.store.header import shown

_LIBRARY, _LATEST = "library", "latest"
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,78}[A-Za-z0-9_-])?"
_NAME = re.compile(rf"(?:({_PART})/)?({_PART})(?::({_PART}))?")
_FORMS = 'write for example "ollama:gemma:7b" or "ollama:someone/model:tag"'


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryName:
    """A model of the registry. Every part is safe in an address."""

    namespace: str = _LIBRARY
    model: str
    tag: str = _LATEST

    def __str__(self) -> str:
        """As short as it can be: what the model is called here, too."""
        return short_name(f"{self.namespace}/{self.model}:{self.tag}")


def registry_name(text: str) -> RegistryName | None:
    """What a name means there; None for one that cannot be a name of the registry, such as a file's.

    Raises:
        ParameterError: it says that it is the registry's, and is none.
    """
    said = prefixed(text)
    if said is not None and PREFIXES[said.store] != PREFIXES["ollama"]:
        return None
    name = short_name(text) if said is None else said.name
    match = _NAME.fullmatch(name)
    if match is None or ".." in name or name.casefold().endswith(".gguf"):
        if said is None:
            return None
        raise ParameterError("model", f"{shown(text)} is not a model of Ollama's registry; {_FORMS}")
    return RegistryName(namespace=match[1] or _LIBRARY, model=match[2], tag=match[3] or _LATEST)
