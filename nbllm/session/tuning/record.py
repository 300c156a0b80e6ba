"""What is kept of a model's tuning on one machine: a TOML file that a person can read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from nbllm.session.tuning.measurement import Measurement, Speeds
from nbllm.session.tuning.setting import Setting

_VERSION = 1
_MAX_BYTES = 1 << 20
_TYPES: Mapping[str, tuple[type, ...]] = {
    "weights": (str,),
    "threads": (int,),
    "max_batch": (int,),
    "flash_attention": (bool,),
    "kv_type": (str,),
}


@dataclass(frozen=True, slots=True)
class Record:
    """All that was measured, and what was chosen; `chosen` is None while that is open.

    Attributes:
        model: the name that it was tuned by, for people.
        machine: for people.
        on_gpu: whether the model has layers on a GPU.
    """

    model: str = ""
    machine: str = ""
    on_gpu: bool = False
    measured: tuple[Measurement, ...] = ()
    chosen: Setting | None = None

    def of(self, setting: Setting) -> Measurement | None:
        return next((one for one in self.measured if one.setting == setting), None)

    def with_measured(self, new: Measurement) -> Record:
        """Takes the place of what was measured of the same setting before."""
        if self.of(new.setting) is None:
            return replace(self, measured=(*self.measured, new))
        kept = tuple(new if one.setting == new.setting else one for one in self.measured)
        return replace(self, measured=kept)


def read(path: Path) -> Record | None:
    """None if there is no record, or one that is damaged or of another version: measuring again mends that."""
    import tomllib

    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES)
        return _record(tomllib.loads(data.decode("utf-8")))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def written(record: Record) -> bytes:
    lines = [
        "# What %llm tune has measured; %llm tune NAME --forget removes it.",
        f"version = {_VERSION}",
        f"model = {_text(record.model)}",
        f"machine = {_text(record.machine)}",
        f"on_gpu = {_value(record.on_gpu)}",
    ]
    if record.chosen is not None:
        lines += ["", "[chosen]", *_setting_lines(record.chosen)]
    for one in record.measured:
        lines += ["", "[[measured]]", *_measurement_lines(one)]
    return ("\n".join(lines) + "\n").encode("utf-8")


def _measurement_lines(one: Measurement) -> list[str]:
    lines = [*_setting_lines(one.setting), f"size_bytes = {one.size_bytes}", f"problem = {_text(one.problem)}"]
    if one.divergence is not None:
        lines.append(f"divergence = {float(one.divergence)!r}")
    for spec in fields(Speeds):
        values = ", ".join(repr(round(float(getattr(run, spec.name)), 3)) for run in one.runs)
        lines.append(f"{spec.name} = [{values}]")
    return lines


def _setting_lines(setting: Setting) -> list[str]:
    return [f"weights = {_text(setting.weights)}", *(f"{name} = {_value(it)}" for name, it in setting.options.items())]


def _value(value: object) -> str:
    return _text(value) if isinstance(value, str) else str(value).lower()


def _text(text: str) -> str:
    """A TOML string: JSON's, but for one character that JSON leaves as it is."""
    plain = text.encode("utf-8", "replace").decode("utf-8")
    return json.dumps(plain, ensure_ascii=False).replace("\x7f", "\\u007f")


def _record(data: Mapping[str, Any]) -> Record:
    if data["version"] != _VERSION:
        raise ValueError
    measured = tuple(_measurement(table) for table in data.get("measured", ()))
    chosen = _setting(data["chosen"]) if "chosen" in data else None
    return Record(str(data["model"]), str(data["machine"]), data["on_gpu"] is True, measured, chosen)


def _measurement(table: Mapping[str, Any]) -> Measurement:
    columns = [[float(value) for value in table[spec.name]] for spec in fields(Speeds)]
    runs = tuple(Speeds(*row) for row in zip(*columns, strict=True))
    divergence = float(table["divergence"]) if "divergence" in table else None
    return Measurement(_setting(table), runs, divergence, int(table["size_bytes"]), str(table["problem"]))


def _setting(table: Mapping[str, Any]) -> Setting:
    values = {name: table[name] for name in _TYPES if name in table}
    if any(type(value) not in _TYPES[name] for name, value in values.items()):
        raise TypeError
    return Setting(**values)
