"""Where other programs keep their models on this machine, as their own settings or their habits say."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

FOREIGN_STORES = ("ollama", "huggingface", "lmstudio", "gpt4all")


def store_folders(store: str) -> tuple[Path, ...]:
    """The folders of one of FOREIGN_STORES, the first to be looked into first; they need not exist.

    None of them where this user has no home folder.
    """
    try:
        return _FOLDERS[store](Path.home())
    except RuntimeError:
        return ()


def _ollama(home: Path) -> tuple[Path, ...]:
    own = _named("OLLAMA_MODELS") or home / ".ollama" / "models"
    return own, Path("/usr/share/ollama/.ollama/models")  # the second is the Linux service's


def _huggingface(home: Path) -> tuple[Path, ...]:
    cache = _named("XDG_CACHE_HOME") or home / ".cache"
    hub = _named("HF_HUB_CACHE") or _named("HUGGINGFACE_HUB_CACHE")
    return (hub or (_named("HF_HOME") or cache / "huggingface") / "hub",)


def _lmstudio(home: Path) -> tuple[Path, ...]:
    return home / ".lmstudio" / "models", home / ".cache" / "lm-studio" / "models"


def _gpt4all(home: Path) -> tuple[Path, ...]:
    """The application's folder, and the one of its Python package."""
    if sys.platform == "darwin":
        data = home / "Library" / "Application Support"
    elif sys.platform == "win32":
        data = _named("LOCALAPPDATA") or home / "AppData" / "Local"
    else:
        data = _named("XDG_DATA_HOME") or home / ".local" / "share"
    return data / "nomic.ai" / "GPT4All", home / ".cache" / "gpt4all"


def _named(variable: str) -> Path | None:
    """Absolute: programs that were started elsewhere mean other folders by a relative one."""
    text = os.environ.get(variable, "")
    path = Path(text).expanduser() if text and "\0" not in text else None
    return path if path is not None and path.is_absolute() else None


_FOLDERS: Mapping[str, Callable[[Path], tuple[Path, ...]]] = {
    "ollama": _ollama,
    "huggingface": _huggingface,
    "lmstudio": _lmstudio,
    "gpt4all": _gpt4all,
}
