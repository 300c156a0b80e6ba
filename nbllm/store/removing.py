"""Taking a model or a preset off this machine: first what that would take along, then the removal itself.

What `%llm tune` keeps of a model goes with it, unless the same model has another name. Only what lies in the models
folder is ever removed, and of it nothing that another program put there.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from nbllm.config import Config, stores
from nbllm.core.presets import Preset
from nbllm.core.sizes import size_text
from nbllm.errors import InvalidRequestError, ModelError
from nbllm.store.blobs import BLOBS_FOLDER, find_blob, is_digest
from nbllm.store.bundled import BUNDLED
from nbllm.store.foreign import prefixed
from nbllm.store.header import shown
from nbllm.store.home import at_home
from nbllm.store.known import KnownModel, known_models
from nbllm.store.names import resolve_listed
from nbllm.store.parts import model_files
from nbllm.store.presets import naming, shelf
from nbllm.store.pulling.lock import locked
from nbllm.store.tunings import tuned_files, tunings_folder

_ELSEWHERE: Mapping[str, str] = {
    "ollama": "is Ollama's: ollama rm {name}",
    "huggingface": "is in the Hugging Face cache, which other programs use: hf cache rm model/{name}",
    "lmstudio": "is LM Studio's: delete it there, among My Models",
    "gpt4all": "is GPT4All's: delete it there, among the installed models",
    "folder": "is in a folder of models_dirs, which is only ever read: delete its file there",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What `do` takes away.

    Attributes:
        name: as the list of models has it.
        paths: the files, a model's first part first.
        frees_bytes: on the disk; a file that another name keeps there counts nothing.
        dependents: the presets that are made of it, which nothing could load any more.
    """

    name: str
    paths: tuple[Path, ...]
    frees_bytes: int
    dependents: tuple[str, ...]
    _config: Config = field(repr=False)
    _is_preset: bool = False

    @property
    def text(self) -> str:
        """What goes, a line a file."""
        kind = "the preset " if self._is_preset else ""
        lines = [f"  {at_home(path)}  {_size(_freed_bytes(path))}" for path in self.paths]
        return "\n".join([f"removing {kind}{self.name} frees {_size(self.frees_bytes)}:", *lines])

    @property
    def warning(self) -> str:
        """The presets that will miss it, "" where there are none."""
        return f"{self._needs}, and will not load without it" if self.dependents else ""

    def check(self, *, force: bool, besides: Collection[str] = ()) -> None:
        """Let no preset lose what it is made of, unless that is wanted.

        Args:
            besides: the names of what goes as well.

        Raises:
            InvalidRequestError: one would.
        """
        if not force and not set(self.dependents) <= set(besides):
            raise InvalidRequestError(
                f"{self._needs}; remove that first, or add --force to remove {self.name} all the same"
            )

    @property
    def _needs(self) -> str:
        is_made = "is made" if len(self.dependents) == 1 else "are made"
        return f"{', '.join(self.dependents)} {is_made} of {self.name}"

    def do(self) -> None:
        """Remove the files, and the folder that is empty then.

        Raises:
            InvalidRequestError: the model is being pulled or tuned, or a file cannot be removed.
        """
        try:
            with self._alone():
                if self._is_preset:
                    shelf.remove(self.name, self._config)
                _unlink(reversed(self.paths))  # cut short, a model is still in the list, and can be removed again
        except OSError as exc:
            where = shown(Path(exc.filename).name) if isinstance(exc.filename, str | os.PathLike) else self.name
            raise InvalidRequestError(
                f"{where} cannot be removed: {exc.strerror or exc}; end what has it open, and try again"
            ) from exc

    @contextmanager
    def _alone(self) -> Iterator[None]:
        root, tunings = self._config.models_dir.absolute(), tunings_folder(self._config)
        with ExitStack() as held:
            if any(path.parent == tunings for path in self.paths):
                held.enter_context(locked(tunings, root, on_wait=_refuse_while_tuned))
            if not self._is_preset:
                held.enter_context(locked(self.paths[0].parent, root, on_wait=self._refuse_while_pulled))
            yield

    def _refuse_while_pulled(self) -> NoReturn:
        raise InvalidRequestError(f"{self.name} is being pulled, or its neighbour is: stop that, or wait for its end")


def _refuse_while_tuned() -> NoReturn:
    raise InvalidRequestError("a tune is under way on this machine: wait for its end, or interrupt it")


def removal(name: str, config: Config) -> Removal:
    """What removing a model or a preset means. Nothing is removed yet.

    Raises:
        ModelNotFoundError: there is none of that name.
        InvalidRequestError: it is not for nbllm to remove; the message says how to do that where it belongs.
    """
    _check_is_no_setting(name, config)
    file = shelf.file_of(name, config)
    return _of_model(name, config) if file is None else _of_preset(file, config)


def removal_order(names: Iterable[str], config: Config, *, force: bool) -> list[str]:
    """The names by which the models are listed, each once, and those first that others of them are not made of.

    Raises:
        As `removal` and `Removal.check`, before anything is removed.
    """
    left = {found.name: found for found in (removal(name, config) for name in names)}
    for found in left.values():
        found.check(force=force, besides=left)
    order: list[str] = []
    while left:
        name = next((name for name, found in left.items() if not left.keys() & found.dependents), next(iter(left)))
        order.append(name)
        del left[name]
    return order


def _check_is_no_setting(name: str, config: Config) -> None:
    meant = config.unaliased(name)
    if meant != name:
        raise InvalidRequestError(
            f"{shown(name)} is another name for {shown(meant)}, which the settings give it: name that one"
        )
    if name in config.endpoints:
        raise InvalidRequestError(f"{shown(name)} is on another server: delete it from [endpoints] of the settings")


# ---- a preset


def _of_preset(file: Path, config: Config) -> Removal:
    """A damaged one goes too; which blobs it names is then not known."""
    name, entry = next((name, entry) for name, entry in shelf.entries(config).items() if entry.path == file)
    blobs = [] if entry.preset is None else _blobs_of_its_own(entry.preset, file, config)
    known = known_models(config).values() if blobs else ()
    tuned = [path for blob in blobs for path in _tuned(blob, known, config)]
    paths = (file, *blobs, *tuned)
    others = [other for other in shelf.presets(config).values() if naming.folded(other.name) != naming.folded(name)]
    return Removal(
        name=name,
        paths=paths,
        frees_bytes=sum(map(_freed_bytes, paths)),
        dependents=tuple(
            other.name for other in others if naming.folded(config.unaliased(other.base)) == naming.folded(name)
        ),
        _config=config,
        _is_preset=True,
    )


def _blobs_of_its_own(preset: Preset, file: Path, config: Config) -> list[Path]:
    """The blobs that it names, and no other preset's file does, be it one that cannot be read as a preset."""
    folder = config.models_dir.absolute() / BLOBS_FOLDER
    named = [preset.base, *(adapter.path for adapter in preset.adapters)]
    paths = [find_blob(text, config) if is_digest(text) else Path(text) for text in named]
    found = list(dict.fromkeys(path.absolute() for path in paths if path is not None))
    texts = [_text(other) for other in file.parent.glob(f"*{naming.SUFFIX}") if other != file]
    return [
        path
        for path in found
        if path.parent == folder and not any(path.name.removeprefix("sha256-") in text for text in texts)
    ]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as exc:
        raise InvalidRequestError(
            f"whether the preset {shown(file.name)} needs the same blobs cannot be told: {exc.strerror or exc}"
        ) from exc


# ---- a model


def _of_model(name: str, config: Config) -> Removal:
    known = known_models(config)
    listed = _listed_name(name, known, config)
    model = known[listed]
    if model.source != "nbllm":
        raise InvalidRequestError(f"{shown(listed)} {_elsewhere(listed, model)}")
    others = [other.path for other in known.values() if other.path != model.path]
    paths = _files(model.path, others, config.models_dir.absolute())
    _check_is_ours(listed, paths, config)
    paths += tuple(_tuned(model.path, known.values(), config))
    return Removal(
        name=listed,
        paths=paths,
        frees_bytes=sum(map(_freed_bytes, paths)),
        dependents=tuple(sorted(_presets_on(paths, config))),
        _config=config,
    )


def _listed_name(name: str, known: Mapping[str, KnownModel], config: Config) -> str:
    """A damaged model too can be meant, but only by the name that it is listed by."""
    if name in known:
        return name
    path = resolve_listed(name, config)
    return next(listed for listed, model in known.items() if model.path == path)


def _elsewhere(listed: str, model: KnownModel) -> str:
    if model.source == "bundled":
        return f"came with a Python package: pip uninstall {BUNDLED[listed].replace('_', '-')}"
    said = prefixed(listed)
    return _ELSEWHERE[model.source].format(name=shown(listed if said is None else said.name))


def _files(first: Path, others: Collection[Path], root: Path) -> tuple[Path, ...]:
    """The model's own, what cut pulls left of them, and the projectors where no other model can need them.

    In the models folder itself nobody can tell whose a projector is.
    """
    folder = first.parent
    own = model_files(first).paths
    left = [path for path in folder.glob(".*.part") if any(path.name.startswith(f".{one.name}.") for one in own)]
    projectors: list[Path] = []
    if folder != root and all(other.parent != folder for other in others):
        projectors = [path for path in folder.iterdir() if _is_projector(path.name.casefold())]
    return (*own, *sorted(projectors), *sorted(left))


def _tuned(model: Path, known: Iterable[KnownModel], config: Config) -> list[Path]:
    """Nothing where a link leads out of the models folder."""
    root, folder = os.path.realpath(config.models_dir), os.path.realpath(tunings_folder(config))
    others = [other.path for other in known if other.path != model and not other.problem]
    return tuned_files(model, config, others) if _is_below(folder, root) else []


def _is_projector(name: str) -> bool:
    return "mmproj" in name and name.endswith(".gguf")


def _check_is_ours(listed: str, paths: Collection[Path], config: Config) -> None:
    """A link to a folder leads out of the models folder, and the models folder may be set to another program's."""
    root = os.path.realpath(config.models_dir)
    foreign = [os.path.realpath(folder) for store in stores.FOREIGN_STORES for folder in stores.store_folders(store)]
    for path in paths:
        real = os.path.realpath(path.parent)
        if not _is_below(real, root):
            raise InvalidRequestError(f"{shown(listed)} lies behind a link that leads out of the models folder")
        if any(_is_below(real, folder) for folder in foreign):
            raise InvalidRequestError(f"{shown(listed)} lies in another program's folder: delete it with that program")


def _is_below(path: str, folder: str) -> bool:
    return os.path.normcase(os.path.join(path, "")).startswith(os.path.normcase(os.path.join(folder, "")))


def _presets_on(paths: Collection[Path], config: Config) -> list[str]:
    real = {os.path.realpath(path) for path in paths}
    found = []
    for preset in shelf.presets(config).values():
        try:
            resolved = shelf.flattened(preset, config)
        except (InvalidRequestError, ModelError):  # it does not load as it is
            continue
        needed = [str(resolved.path), *(adapter.path for adapter in resolved.preset.adapters)]
        if any(os.path.realpath(path) in real for path in needed):
            found.append(preset.name)
    return found


# ---- files


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _size(num_bytes: int) -> str:
    return size_text(num_bytes) if num_bytes >= 10**6 else "less than 1 MB"


def _freed_bytes(path: Path) -> int:
    try:
        status = path.lstat()
    except OSError:
        return 0
    return status.st_size if status.st_nlink == 1 and not path.is_symlink() else 0
