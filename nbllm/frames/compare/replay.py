"""`nbllm.replay`: a comparison run again from its manifest."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbllm.config import load_config
from nbllm.errors import ModelNotFoundError, NbllmError, ParameterError
from nbllm.frames.asks import Progress
from nbllm.frames.compare.compare import compare
from nbllm.frames.compare.contenders import hash_of
from nbllm.frames.compare.manifest import manifest_of, versions
from nbllm.frames.compare.table import unkept
from nbllm.frames.progress import say
from nbllm.session.cache import AnswerCache
from nbllm.session.cachekey import preset_key
from nbllm.session.model import Model
from nbllm.session.named import named
from nbllm.store import model_hash

if TYPE_CHECKING:
    import pandas as pd

_SHORT = 12
_PASSED_ON = ("params", "system", "response_format", "repeat", "seed", "order", "limit")


def replay(
    source: pd.DataFrame | Mapping[str, Any] | str | Path,
    *,
    allow_changes: bool = False,
    models: Mapping[str, str | Path | Model] | None = None,
    scorers: Mapping[str, Any] | None = None,
    judge: str | Mapping[str, Any] | None = None,
    cache: bool | AnswerCache = False,
    progress: bool | Progress | None = None,
    background: bool = False,
) -> pd.DataFrame:
    """Run a comparison again, with the same models, prompts, parameters and seeds, and say what has changed since.

    Texts are the same for certain where `params` had "reproducible": True; else neighbours in a batch change one now
    and then.

    Args:
        source: a frame of `nbllm.compare`, its manifest (`frame.attrs["nbllm"]`), or the file that has it.
        allow_changes: run also where a model's file is another one than then.
        models: by name, those that a manifest cannot hold, or that lie elsewhere now.
        scorers: by name, the functions among them, which a manifest cannot hold.
        judge: in place of the one then.
        cache: by default everything is computed again.

    Raises:
        ParameterError: there is no manifest, or a model's file has changed, or a model or a function is missing.
    """
    manifest = manifest_of(source)
    contenders = _Contenders(manifest, models or {})
    if contenders.changes and not allow_changes:
        raise ParameterError(
            "allow_changes", f"{'; '.join(contenders.changes)}. To run with what is there now: allow_changes=True"
        )
    _tell([*contenders.changes, *_changed_versions(manifest)])
    inputs = manifest["inputs"]
    return compare(
        inputs["prompts"],
        contenders.models,
        data=None if inputs["data"] is None else unkept(json.loads(inputs["data"])),
        scorers=_scorers(inputs["scorers"], scorers or {}),
        expected=inputs["expected"],
        judge=inputs["judge"] if judge is None else judge,
        cache=cache,
        progress=progress,
        background=background,
        **{name: inputs[name] for name in _PASSED_ON},
    )


class _Contenders:
    """The models of a manifest as they are now.

    Attributes:
        models: by name, what `compare` takes.
        changes: one sentence for each whose file or preset is another one.
    """

    def __init__(self, manifest: Mapping[str, Any], given: Mapping[str, str | Path | Model]) -> None:
        self.models: dict[str, str | Path | Model] = {}
        self.changes: list[str] = []
        names = [entry["name"] for entry in manifest["models"]]
        for name in given:
            if name not in names:
                raise ParameterError("models", f"there was no {name!r:.100}; there were {', '.join(names)}")
        for entry in manifest["models"]:
            self._add(entry, given.get(entry["name"]))

    def _add(self, entry: Mapping[str, Any], given: str | Path | Model | None) -> None:
        name, before = entry["name"], entry["file_hash"]
        self.models[name] = given if given is not None else _found(entry)
        now = _hash(self.models[name]) if before else ""
        if now != before:
            self.changes.append(f"{name} is another file now ({before[:_SHORT]} then, {now[:_SHORT] or 'none'} now)")
        if before and entry.get("preset_hash", "") != _preset_hash(self.models[name]):
            self.changes.append(f"{name} has another preset now")


def _found(entry: Mapping[str, Any]) -> str | Path:
    """Where the file was, or else what it was called. Of a preset only that, for the file is its base's."""
    if entry["path"] and not entry.get("preset_hash") and os.path.exists(entry["path"]):
        return Path(entry["path"])
    if entry["spec"]:
        return str(entry["spec"])
    what = entry.get("summary") or entry["name"]
    raise ParameterError("models", f"give models={{{entry['name']!r}: ...}}: a manifest does not hold {what!r:.100}")


def _hash(model: str | Path | Model) -> str:
    if isinstance(model, Model):
        return hash_of(model)
    try:
        return model_hash(named(model, load_config()).path)
    except ModelNotFoundError as error:
        raise ParameterError("models", f"{error}") from error
    except NbllmError:
        return ""


def _preset_hash(model: str | Path | Model) -> str:
    try:
        return preset_key(model.preset if isinstance(model, Model) else named(model, load_config()).preset)
    except NbllmError:
        return ""


def _scorers(kept: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any] | None:
    functions = [name for name, spec in kept.items() if isinstance(spec, Mapping)]
    missing = [name for name in functions if name not in given]
    if missing:
        raise ParameterError("scorers", f"give scorers={{{missing[0]!r}: ...}}: a manifest does not hold functions")
    return {**kept, **given} or None


def _changed_versions(manifest: Mapping[str, Any]) -> list[str]:
    now = versions()
    return [
        f"{name} {then} -> {now.get(name, 'none')}"
        for name, then in manifest["versions"].items()
        if now.get(name, "none") != then
    ]


def _tell(changes: list[str]) -> None:
    if changes:
        say(f"changed since then: {'; '.join(changes)}")
