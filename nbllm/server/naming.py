"""What the names of models mean to clients, and which names they are told. No answer to a client has a path in it."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nbllm.config import Config
from nbllm.core import Preset
from nbllm.errors import ModelLoadError, ModelNotFoundError, NbllmError
from nbllm.session.tuning.kept import Tuned, tuned
from nbllm.store.catalog import described
from nbllm.store.hashes import SETTLED_NS
from nbllm.store.names import named_models, resolve, resolve_listed, settings_models
from nbllm.store.presets import shelf
from nbllm.store.tunings import tunings_folder

if TYPE_CHECKING:
    from nbllm.core import ModelInfo

_ANY = "*"
_logger = logging.getLogger("nbllm.server")


@dataclass(frozen=True, slots=True)
class Target:
    """What a model's name stands for.

    Attributes:
        name: the resolved name, which answers carry, and which can be asked for.
        path: of the file on this machine; None for a model of another server.
        stamp: what changes when that file is replaced: its size, its time in nanoseconds, its number.
        context_length: that the model was trained for; 0 is unknown.
        preset: what makes it another model than its file; with all that it takes from the presets it is made from.
        base: the name of the model whose file it is: its own, unless it is a preset.
        changed: when the preset was, in nanoseconds since 1970; empty is unknown.
        tuned: what `%llm tune` has chosen for the file on this machine, if anything; listings are without it.
    """

    name: str
    path: Path | None
    stamp: tuple[int, ...] = ()
    context_length: int = 0
    preset: Preset | None = None
    base: str = ""
    changed: tuple[int, ...] = ()
    tuned: Tuned | None = None

    @property
    def file(self) -> Path | None:
        """What is loaded: the model's own, or the same in another format."""
        return self.path if self.tuned is None else self.tuned.path

    @property
    def modified_s(self) -> int:
        """When the file or the preset was written, in seconds since 1970; 0 is unknown."""
        written = self.changed or self.stamp[1:2]
        return written[0] // 10**9 if written else 0


class ModelNames:
    """Reads folders and the headers of files: to be used from threads.

    Args:
        config: read afresh for each question.
        endpoints: names of other servers' models.
    """

    def __init__(self, config: Callable[[], Config], endpoints: Collection[str]) -> None:
        self._config, self._endpoints = config, endpoints
        self._tunings: dict[Path, tuple[tuple[int, ...], Tuned | None]] = {}

    def target(self, name: str, *, by_any: bool = True, also: Sequence[str] = ()) -> Target:
        """What a client's name stands for.

        Args:
            by_any: whether a name that means nothing else means what "*" stands for.
            also: other spellings of the name: the first that there is, `name` included, is meant; else the first here.

        Raises:
            ModelNotFoundError: nothing; the message has the closest names.
            ModelLoadError: a file that cannot be loaded, as its header shows.
            ParameterError: it is no name at all.
        """
        config = self._config()
        if not also:
            return self._as_tuned(self._meant(name, config, by_any=by_any), config)
        files = _files(config)
        known = {*files, *shelf.presets(config), *config.aliases, *self._endpoints} - {_ANY}
        form = next((form for form in (name, *also) if form in known), also[0])
        return self._as_tuned(self._meant(form, config, files, by_any=by_any), config)

    def _meant(
        self, name: str, config: Config, files: Mapping[str, Path] | None = None, *, by_any: bool = True
    ) -> Target:
        """Looks the files up only where they are needed."""
        meant = config.unaliased(name)
        if meant in self._endpoints:
            return Target(meant, None, base=meant)
        files = _files(config) if files is None else files
        preset = shelf.find(meant, config)
        if preset is not None:
            return self._tailored(preset, files, config)
        try:
            return self._loadable(_path(name, meant, files, config), files)
        except ModelNotFoundError:
            if not by_any or config.catch_all() is None or meant != name:
                raise
            return self._meant(_ANY, config, files)

    def _as_tuned(self, target: Target, config: Config) -> Target:
        """Looked for again when something was tuned or forgotten: that takes milliseconds, and each request asks."""
        folder = _stamp(tunings_folder(config))
        if target.path is None or not folder:
            return target
        stamp = (*target.stamp, *folder)
        known = self._tunings.get(target.path)
        if known is None or known[0] != stamp:
            known = stamp, tuned(target.path, config)
            if time.time_ns() - folder[1] > SETTLED_NS:  # a change within a tick of its clock would go unseen
                self._tunings[target.path] = known
        return replace(target, tuned=known[1])

    def listed(self) -> dict[str, Target]:
        """What can be asked for, by each of its names; neither what cannot be loaded, nor `default` and `*`."""
        config = self._config()
        files = _files(config)
        described = {name: self._described(name, files[name]) for name in sorted(files, key=str.casefold)}
        found = {name: target for name, (target, problem) in described.items() if not problem}
        for name in self._endpoints:
            found.setdefault(name, Target(name, None, base=name))
        presets = shelf.entries(config)
        for name, entry in presets.items():
            if entry.preset is not None and name not in self._endpoints:
                with contextlib.suppress(NbllmError):
                    found[name] = self._tailored(entry.preset, files, config, presets)
        for alias in config.aliases:
            if alias != _ANY and alias not in found:
                with contextlib.suppress(NbllmError):
                    found[alias] = self._meant(alias, config, files)
        return found

    def info(self, path: Path) -> ModelInfo:
        """What the file says of itself; what is wrong with it is in `problem`."""
        return described(path)

    def _loadable(self, path: Path, files: Mapping[str, Path]) -> Target:
        name = next((known for known, file in files.items() if file == path), path.name)
        target, problem = self._described(name, path)
        if problem:
            raise ModelLoadError(f"the model {name[:200]!r} cannot be loaded: {without_folder(problem, path)}")
        return target

    def _tailored(
        self, preset: Preset, files: Mapping[str, Path], config: Config, known: shelf.Shelf | None = None
    ) -> Target:
        """Args: known: of `shelf.entries`, where the caller has it."""

        def find(base: str) -> Path:
            return _path(base, config.unaliased(base), files, config)

        known = shelf.entries(config) if known is None else known
        try:
            whole = shelf.flattened(preset, config, shelf=known, find_file=find)
        except NbllmError as exc:  # names paths, which are for the owner
            _logger.warning("nbllm: %s: %s", preset.name, exc)
            raise ModelNotFoundError(
                f"{preset.name!r} is made from a model or an adapter that is not there, or cannot be loaded; ask for "
                "another, see GET /v1/models"
            ) from exc
        base = self._loadable(whole.path, files)
        changed = _stamp(known[preset.name].path)[1:2] if preset.name in known else ()
        return replace(base, name=preset.name, preset=whole.preset, changed=changed)

    def _described(self, name: str, path: Path) -> tuple[Target, str]:
        """With what is wrong with its file, "" if nothing is."""
        info = described(path)
        return Target(name, path, _stamp(path), info.context_length, base=name), info.problem


def without_folder(text: str, path: Path) -> str:
    """The text, with the names of the model's files instead of their paths."""
    return text.replace(os.fspath(path.parent) + os.sep, "")


def _files(config: Config) -> dict[str, Path]:
    known = named_models(config)
    return {**settings_models(config, known), **known}


def _path(name: str, meant: str, files: Mapping[str, Path], config: Config) -> Path:
    if meant == name or _is_plain(meant):
        return resolve_listed(meant, config, models=files)
    try:
        return resolve(meant, config)
    except ModelNotFoundError as exc:  # names a path, which is for the owner
        _logger.warning("nbllm: %s: %s", name, exc)
        raise ModelNotFoundError(
            f"the model that {name[:200]!r} stands for is not there; ask for another, see GET /v1/models"
        ) from exc


def _is_plain(name: str) -> bool:
    return Path(name).name == name and not name.startswith("~") and not name.casefold().endswith(".gguf")


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:  # deleted since it was found; the runner says so
        return ()
    return status.st_size, status.st_mtime_ns, status.st_ino
