"""Where settings come from: two files and the environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from nbllm.config import checks
from nbllm.config.settings import CHECKS, Config
from nbllm.core import unknown_option
from nbllm.errors import ParameterError

_READ: Mapping[str, Callable[[str], object]] = {
    "memory_fraction": float,
    "prefix_store_bytes": int,
    "threads": int,
    "share_kernels": checks.switch_text,
    "context_length": int,
    "max_sequences": int,
    "max_loaded_models": int,
    "max_queue": int,
    "load_timeout": float,
    "models_dirs": lambda text: [entry for entry in text.split(os.pathsep) if entry],
    "foreign_stores": lambda text: _separated(text) if text.strip() != "none" else [],
    "allow_origins": lambda text: _separated(text),
}
"""How the text of an environment variable becomes a value, where it is not the text itself."""
_PATHS = ("models_dir", "cores_file", "runtime_dir", "keys_file", "chats_dir")
_TABLES = ("aliases", "endpoints")


def _separated(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]


@dataclass(frozen=True, slots=True)
class _Setting:
    value: object
    origin: str


def load_config() -> Config:
    """Read the settings afresh, so that a change counts for the next model without a restart.

    Raises:
        ParameterError: a file is not TOML or has an unknown key, or a value is not allowed; the message names the
            variable or the file.
    """
    settings = _merged(_from_file(site_file()), _from_file(user_file())) | _from_environment()
    try:
        return Config(**{name: setting.value for name, setting in settings.items()})  # type: ignore[arg-type]
    except ParameterError as exc:
        setting = settings.get(exc.param)
        if setting is None:
            raise
        raise ParameterError(setting.origin, exc.problem) from exc


def _merged(site: dict[str, _Setting], user: dict[str, _Setting]) -> dict[str, _Setting]:
    both = site | user
    for name in _TABLES:
        if name in site and name in user:
            of_site, of_user = site[name].value, user[name].value
            assert isinstance(of_site, Mapping)  # checked file by file
            assert isinstance(of_user, Mapping)
            both[name] = _Setting({**of_site, **of_user}, user[name].origin)
    return both


def _from_environment() -> dict[str, _Setting]:
    settings = {}
    for spec in fields(Config):
        variable = f"NBLLM_{spec.name.upper()}"
        text = os.environ.get(variable, "")
        if text and spec.name in _TABLES:
            raise ParameterError(variable, f"is no setting: write a table [{spec.name}] into {user_file()}")
        if text:
            settings[spec.name] = _Setting(_read(spec.name, text), variable)
    return settings


def _read(name: str, text: str) -> object:
    """What is no number stays text, which the check then refuses with the words that were given."""
    try:
        return _READ[name](text) if name in _READ else text
    except ValueError:
        return text


def _from_file(path: Path) -> dict[str, _Setting]:
    known = [spec.name for spec in fields(Config)]
    settings = {}
    for name, value in _parsed(path).items():
        if name not in known:
            raise ParameterError(f"{name} in {path}", unknown_option(name, known))
        settings[name] = _Setting(_own(name, value, path), f"{name} in {path}")
    return settings


def _own(name: str, value: object, path: Path) -> object:
    """The value as this file means it: paths start at its folder, and tables are checked while their file is known."""
    if name in _PATHS:
        return _beside(value, path)
    if name == "models_dirs" and isinstance(value, list):
        return [_beside(entry, path) for entry in value]
    if name in _TABLES:
        try:
            return CHECKS[name](name, value)
        except ParameterError as exc:
            raise ParameterError(f"{exc.param} in {path}", exc.problem) from exc
    return value


def _beside(value: object, path: Path) -> object:
    return path.parent / value if isinstance(value, str) and value and not value.startswith("~") else value


def site_file() -> Path:
    import platformdirs

    return platformdirs.site_config_path("nbllm") / "config.toml"


def user_file() -> Path:
    named = os.environ.get("NBLLM_CONFIG", "")
    if not named:
        import platformdirs

        return platformdirs.user_config_path("nbllm") / "config.toml"
    path = checks.path("NBLLM_CONFIG", named)
    if not path.exists():
        raise ParameterError("NBLLM_CONFIG", f"there is no file {str(path)!r}; correct the path or unset the variable")
    return path


def _parsed(path: Path) -> dict[str, object]:
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as exc:
        raise ParameterError(str(path), f"cannot be read: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise ParameterError(str(path), "is not TOML: it is not UTF-8 text") from exc
    import tomllib

    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        raise ParameterError(str(path), f"is not TOML: {exc}") from exc
