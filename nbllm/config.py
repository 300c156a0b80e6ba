"""The settings of this machine, and the one place that reads the environment (errors.py reads NBLLM_DEBUG itself).

Each setting comes from its environment variable, else from `config.toml` in the user's configuration folder
(NBLLM_CONFIG names another file), else from its default. An empty variable counts as not set. A relative path in the
file starts at the file's folder.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from nbllm.core import unknown_option
from nbllm.errors import ParameterError


def _default_models_dir() -> Path:
    import platformdirs

    return platformdirs.user_data_path("nbllm") / "models"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What nbllm may use of this machine, checked on construction.

    Args:
        models_dir: the folder whose GGUF files have names. NBLLM_MODELS_DIR.
        default_model: what answers when no model is named. NBLLM_DEFAULT_MODEL.
        memory_fraction: share of the free memory that an engine may plan with. NBLLM_MEMORY_FRACTION.
        prefix_store_bytes: for prefixes kept after their requests; 0 keeps none, None lets the engine decide.
            NBLLM_PREFIX_STORE_BYTES.
        threads: of an engine, None shares the cores with the machine's other engines. NBLLM_THREADS.
        cores_file: the table in which the machine's engines divide its cores, None is the usual place.
            NBLLM_CORES_FILE.

    Raises:
        ParameterError: a value is of a wrong type or out of range; the message names it and what is allowed.
    """

    models_dir: Path = field(default_factory=_default_models_dir)
    default_model: str = "smollm2"
    memory_fraction: float = 0.75
    prefix_store_bytes: int | None = None
    threads: int | None = None
    cores_file: Path | None = None

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))


def load_config() -> Config:
    """Read the settings afresh, so that a change counts for the next model without a restart.

    Raises:
        ParameterError: the file is not TOML or has an unknown key, or a value is not allowed; the message names the
            variable or the file.
    """
    settings = _from_file() | _from_environment()
    try:
        return Config(**{name: setting.value for name, setting in settings.items()})  # type: ignore[arg-type]
    except ParameterError as exc:
        setting = settings.get(exc.param)
        if setting is None:
            raise
        raise ParameterError(setting.origin, exc.problem) from exc


@dataclass(frozen=True, slots=True)
class _Setting:
    value: object
    origin: str


def _checked_path(name: str, value: object) -> Path:
    if not isinstance(value, str | os.PathLike) or not os.fspath(value) or "\0" in os.fsdecode(value):
        raise ParameterError(name, f"must be a path, not {value!r}")
    try:
        return Path(os.fsdecode(value)).expanduser()
    except RuntimeError as exc:
        raise ParameterError(name, f"{os.fsdecode(value)!r} starts with the home folder of nobody known") from exc


def _checked_optional_path(name: str, value: object) -> Path | None:
    return None if value is None else _checked_path(name, value)


def _checked_name(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ParameterError(name, f"must be a model's name or path, not {value!r}")
    return value.strip()


def _checked_share(name: str, value: object) -> float:
    allowed = "must be a number above 0 and at most 1"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ParameterError(name, f"{allowed}, not {value!r}")
    if not (math.isfinite(value) and 0 < value <= 1):
        raise ParameterError(name, f"{allowed}, not {value!r}")
    return float(value)


def _checked_count(low: int) -> Callable[[str, object], int | None]:
    def check(name: str, value: object) -> int | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value < 2**63:
            raise ParameterError(name, f"must be a whole number of {low} or more, not {value!r}")
        return value

    return check


_CHECKS: Mapping[str, Callable[[str, object], object]] = {
    "models_dir": _checked_path,
    "default_model": _checked_name,
    "memory_fraction": _checked_share,
    "prefix_store_bytes": _checked_count(0),
    "threads": _checked_count(1),
    "cores_file": _checked_optional_path,
}
_NUMBERS: Mapping[str, Callable[[str], int | float]] = {
    "memory_fraction": float,
    "prefix_store_bytes": int,
    "threads": int,
}
_PATHS = ("models_dir", "cores_file")


def _from_environment() -> dict[str, _Setting]:
    settings = {}
    for spec in fields(Config):
        variable = f"NBLLM_{spec.name.upper()}"
        text = os.environ.get(variable, "")
        if text:
            settings[spec.name] = _Setting(_as_number_if_one(spec.name, text), variable)
    return settings


def _as_number_if_one(name: str, text: str) -> object:
    """What is no number stays text, which the check then refuses with the words that were given."""
    try:
        return _NUMBERS[name](text) if name in _NUMBERS else text
    except ValueError:
        return text


def _from_file() -> dict[str, _Setting]:
    path = _config_file()
    known = [spec.name for spec in fields(Config)]
    settings = {}
    for name, value in _parsed(path).items():
        if name not in known:
            raise ParameterError(f"{name} in {path}", unknown_option(name, known))
        if name in _PATHS and isinstance(value, str) and value and not value.startswith("~"):
            value = path.parent / value
        settings[name] = _Setting(value, f"{name} in {path}")
    return settings


def _config_file() -> Path:
    named = os.environ.get("NBLLM_CONFIG", "")
    if not named:
        import platformdirs

        return platformdirs.user_config_path("nbllm") / "config.toml"
    path = _checked_path("NBLLM_CONFIG", named)
    if not path.exists():
        raise ParameterError("NBLLM_CONFIG", f"there is no file {str(path)!r}; correct the path or unset the variable")
    return path


def _parsed(path: Path) -> dict[str, object]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
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
