"""What may be set, and to what."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nbllm.config import checks
from nbllm.config.endpoints import Endpoint, endpoints
from nbllm.config.registry import REGISTRY, registry
from nbllm.config.stores import FOREIGN_STORES
from nbllm.errors import ParameterError

DEFAULT_ALIAS = "default"
_ANY = "*"
_LOCAL_ORIGINS = tuple(
    f"{scheme}://{host}:*" for host in ("localhost", "127.0.0.1", "[::1]") for scheme in ("http", "https")
)


def _default_models_dir() -> Path:
    import platformdirs

    return platformdirs.user_data_path("nbllm") / "models"


def _default_runtime_dir() -> Path:
    """Jupyter's own, so that a kernel and the server that started it mean the same folder."""
    named = os.environ.get("JUPYTER_RUNTIME_DIR", "")
    if named:
        return Path(named) / "nbllm"
    import platformdirs

    return platformdirs.user_data_path("jupyter") / "runtime" / "nbllm"


def _default_keys_file() -> Path:
    import platformdirs

    return platformdirs.user_config_path("nbllm") / "keys.json"


def _default_chats_dir() -> Path:
    import platformdirs

    return platformdirs.user_data_path("nbllm") / "chats"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What nbllm may use of this machine and how it serves, checked on construction.

    Each but the tables has a variable too, NBLLM_ and its name in capitals.

    Args:
        models_dir: the folder whose GGUF files have names.
        models_dirs: more such folders, only ever read; a name in an earlier folder hides the same one in a later.
            Its variable separates them as PATH does.
        foreign_stores: the programs whose models have names too: "ollama", "huggingface", "lmstudio", "gpt4all"; of a
            name that two have, the first. Its variable separates them by commas; "none" is none of them.
        registry: the address of Ollama's registry, which is only asked for models that are to be pulled; "" or "none"
            never asks it.
        default_model: what answers when no model is named.
        memory_fraction: share of the free memory that an engine may plan with.
        prefix_store_bytes: for prefixes kept after their requests; 0 keeps none, None lets the engine decide.
        threads: of an engine, None shares the cores with the machine's other engines.
        cores_file: the table in which the machine's engines divide its cores, None is the usual place.
        runtime_dir: where running engines leave their records and sockets.
        share_kernels: whether a kernel's model may answer other programs of the same user.
        context_length: tokens that one conversation may have where none is asked for, None is chosen by memory.
        max_sequences: requests that run side by side in one model.
        max_loaded_models: that the server holds at a time; 0 is as many as fit.
        keep_alive: seconds that an idle model stays loaded; negative is for ever. Also text: "5m", "1h30m".
        max_queue: requests that the server has in flight at a time, all models together; more are told to come later.
        load_timeout: seconds that a model may take to load.
        keys_file: the hashes of the API keys.
        chats_dir: what was said in chat widgets.
        allow_origins: the web pages that may use the API: "https://host:port", "http://host:*", or "*" for all.
            Its variable separates them by commas.
        aliases: names for models; "*" stands for every name that means no model.
        endpoints: models on other OpenAI-compatible servers, by the names that they have here.

    Raises:
        ParameterError: a value is of a wrong type or out of range; the message names it and what is allowed.
    """

    models_dir: Path = field(default_factory=_default_models_dir)
    models_dirs: tuple[Path, ...] = ()
    foreign_stores: tuple[str, ...] = FOREIGN_STORES
    registry: str = REGISTRY
    default_model: str = "smollm2"
    memory_fraction: float = 0.75
    prefix_store_bytes: int | None = None
    threads: int | None = None
    cores_file: Path | None = None
    runtime_dir: Path = field(default_factory=_default_runtime_dir)
    share_kernels: bool = True
    context_length: int | None = None
    max_sequences: int = 8
    max_loaded_models: int = 2
    keep_alive: float = 300.0
    max_queue: int = 256
    load_timeout: float = 120.0
    keys_file: Path = field(default_factory=_default_keys_file)
    chats_dir: Path = field(default_factory=_default_chats_dir)
    allow_origins: tuple[str, ...] = _LOCAL_ORIGINS
    aliases: Mapping[str, str] = field(default_factory=dict)
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, check in CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))
        for alias in (DEFAULT_ALIAS, *self.aliases):
            self.unaliased(alias)

    def unaliased(self, name: str) -> str:
        """What a name stands for in the end; a name that is no alias stands for itself. "*" is one like any other."""
        followed = [name]
        while (target := self._target(followed[-1])) is not None:
            if target in followed:
                setting = "default_model" if followed == [DEFAULT_ALIAS] else "aliases"
                raise ParameterError(setting, f"form a loop: {' -> '.join([*followed, target])}"[:200])
            followed.append(target)
        return followed[-1]

    def catch_all(self) -> str | None:
        """What answers for a name that means no model, None when nothing does."""
        return self.unaliased(_ANY) if _ANY in self.aliases else None

    def _target(self, name: str) -> str | None:
        return self.default_model if name == DEFAULT_ALIAS else self.aliases.get(name)


CHECKS: Mapping[str, checks.Check] = {
    "models_dir": checks.path,
    "models_dirs": checks.paths,
    "foreign_stores": checks.several_of(FOREIGN_STORES),
    "registry": registry,
    "default_model": checks.model_name,
    "memory_fraction": checks.share,
    "prefix_store_bytes": checks.optional_count(0),
    "threads": checks.optional_count(1),
    "cores_file": checks.optional_path,
    "runtime_dir": checks.path,
    "share_kernels": checks.switch,
    "context_length": checks.optional_count(1),
    "max_sequences": checks.count(1),
    "max_loaded_models": checks.count(0),
    "keep_alive": checks.duration,
    "max_queue": checks.count(1),
    "load_timeout": checks.seconds,
    "keys_file": checks.path,
    "chats_dir": checks.path,
    "allow_origins": checks.origins,
    "aliases": checks.aliases,
    "endpoints": endpoints,
}
