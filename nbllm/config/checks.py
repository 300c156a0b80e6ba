"""What each kind of setting may be: a check takes the setting's name and a value, and gives the value as it is kept."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from nbllm.core.durations import parse_duration
from nbllm.errors import ParameterError

Check = Callable[[str, object], object]

_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/]+/?|\*|null")  # the server looks closer
_SWITCHES = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def path(name: str, value: object) -> Path:
    if not isinstance(value, str | os.PathLike) or not os.fspath(value) or "\0" in os.fsdecode(value):
        raise ParameterError(name, f"must be a path, not {value!r}")
    try:
        return Path(os.fsdecode(value)).expanduser()
    except RuntimeError as exc:
        raise ParameterError(name, f"{os.fsdecode(value)!r} starts with the home folder of nobody known") from exc


def optional_path(name: str, value: object) -> Path | None:
    return None if value is None else path(name, value)


def paths(name: str, value: object) -> tuple[Path, ...]:
    return tuple(path(name, entry) for entry in _entries(name, value, "paths"))


def model_name(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ParameterError(name, f"must be a model's name or path, not {value!r}")
    return value.strip()


def share(name: str, value: object) -> float:
    allowed = "must be a number above 0 and at most 1"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ParameterError(name, f"{allowed}, not {value!r}")
    if not (math.isfinite(value) and 0 < value <= 1):
        raise ParameterError(name, f"{allowed}, not {value!r}")
    return float(value)


def seconds(name: str, value: object) -> float:
    allowed = "must be a number of seconds above 0"
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ParameterError(name, f"{allowed}, not {value!r}")
    return float(value)


def duration(name: str, value: object) -> float:
    try:
        return parse_duration(value)
    except ParameterError as exc:
        raise ParameterError(name, exc.problem) from exc


def count(low: int) -> Callable[[str, object], int]:
    def check(name: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value < 2**63:
            raise ParameterError(name, f"must be a whole number of {low} or more, not {value!r}")
        return value

    return check


def optional_count(low: int) -> Callable[[str, object], int | None]:
    check_count = count(low)
    return lambda name, value: None if value is None else check_count(name, value)


def switch(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ParameterError(name, f"must be true or false, not {value!r}")
    return value


def switch_text(text: str) -> bool | str:
    """How an environment variable says true or false; any other text stays as it is, for the check to refuse."""
    return _SWITCHES.get(text.strip().casefold(), text)


def origins(name: str, value: object) -> tuple[str, ...]:
    entries = _entries(name, value, "origins")
    for entry in entries:
        if not isinstance(entry, str) or not _ORIGIN.fullmatch(entry):
            raise ParameterError(name, f'{entry!r} is not an origin; write "https://host:port", "http://host:*" or "*"')
    return tuple(str(entry) for entry in entries)


def several_of(allowed: Collection[str]) -> Callable[[str, object], tuple[str, ...]]:
    def check(name: str, value: object) -> tuple[str, ...]:
        entries = _entries(name, value, "names")
        for entry in entries:
            if entry not in allowed:
                raise ParameterError(name, f"{entry!r:.100} is none of {', '.join(allowed)}")
        return tuple(dict.fromkeys(str(entry) for entry in entries))

    return check


def aliases(name: str, value: object) -> Mapping[str, str]:
    """Each alias with what it stands for, which may be an alias again. Loops are looked for in all files together."""
    if not isinstance(value, Mapping):
        raise ParameterError(name, f"must be a table of names, not {value!r:.100}")
    for alias in value:
        if not isinstance(alias, str) or not alias.strip() or alias != alias.strip():
            raise ParameterError(name, f"{alias!r} is not a name")
        if alias == "default":
            raise ParameterError(f"{name}.default", "always means default_model; set that one")
    return {alias: model_name(f"{name}.{alias}", target) for alias, target in value.items()}


def _entries(name: str, value: object, what: str) -> list[object]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, list | tuple):
        raise ParameterError(name, f"must be a list of {what}, not {value!r:.100}")
    return list(value)
