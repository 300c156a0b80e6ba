"""A preset as TOML, the form on disk, which people may write too.

from = "smollm2"
system = "You are Mario."
template = "..."                                  # Jinja, or Ollama's language
license = ["..."]                                 # or one text
adapters = [{ path = "mario.gguf", scale = 0.5 }]
messages = [{ role = "user", content = "Hello!" }]
[parameters]                                      # see params.py
temperature = 0.7
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nbllm.core import unknown_option
from nbllm.core.adapters import SCALE, Adapter
from nbllm.core.messages import Message
from nbllm.core.presets import Preset
from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.store.header import shown
from nbllm.store.presets import params, places, templates
from nbllm.store.presets.text import checked_text

_KEYS = ("from", "system", "template", "license", "adapters", "messages", "parameters")
_PARAMETERS = "parameters."
_TEXTS = re.compile(
    r'"""(?:[^"\\]++|\\.|"(?!""))*+(?:"{3,5})?'
    r"|'''(?:[^']++|'(?!''))*+(?:'{3,5})?"
    r'|"(?:[^"\\\n]++|\\.)*+"?'
    r"|'[^'\n]*+'?"
    r"|#[^\n]*+",
    re.DOTALL,
)
"""And comments. One that is not closed goes to its end, so that the search takes no longer than the text is."""
_MAX_BESIDES_TEXTS = 100_000
_MAX_DOTS = 32
"""In a line: tomllib's time goes with the square of the parts of a key."""


def parse(text: str, *, name: str, folder: Path | None) -> Preset:
    """Read a preset. The arguments are those of `modelfile.parse`.

    Raises:
        InvalidRequestError: with the key, or the place where it is not TOML.
    """
    table = _table(checked_text(text).removeprefix("\ufeff"))
    for key in table:
        if key not in _KEYS:
            raise ParameterError(shown(key), unknown_option(key[:100], _KEYS))
    if "from" not in table:
        raise InvalidRequestError('there is no from, which says what the model is made of: from = "smollm2"')
    template, go_template = (None, None) if "template" not in table else templates.split(_text(table, "template"))
    read = params.read(_tables(table, "parameters"), _PARAMETERS)
    return Preset(
        name=name,
        base=_placed("from", places.base, _text(table, "from"), folder),
        system=_text(table, "system") if "system" in table else None,
        messages=tuple(_message(entry, at) for entry, at in _entries(table, "messages")),
        sampling=read.sampling,
        template=template,
        go_template=go_template,
        adapters=tuple(_adapter(entry, at, folder) for entry, at in _entries(table, "adapters")),
        context_length=read.context_length,
        threads=read.threads,
        licenses=_licenses(table.get("license", [])),
        ignored=read.ignored,
    )


def _table(text: str) -> dict[str, Any]:
    import tomllib

    _check_size(text)
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise InvalidRequestError("the preset is not TOML: too many brackets in each other") from None
    except ValueError as exc:  # also of a number with too many digits, which is no TOMLDecodeError
        raise InvalidRequestError(f"the preset is not TOML: {shown(exc)}") from exc


def _check_size(text: str) -> None:
    """Raises InvalidRequestError for what would take tomllib long."""
    besides = _TEXTS.sub('""', text)
    if len(besides) > _MAX_BESIDES_TEXTS:
        raise InvalidRequestError(
            f"the preset has {len(besides):,} characters outside of its texts; {_MAX_BESIDES_TEXTS:,} are the most"
        )
    for number, line in enumerate(besides.split("\n"), 1):
        if line.count(".") > _MAX_DOTS:
            raise InvalidRequestError(f"line {number} (texts counted as one): too many dots; write it in several lines")


def _tables(table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        raise ParameterError(key, f"must be a table, not {type(value).__name__}")
    return value


def _text(table: Mapping[str, Any], key: str, at: str = "") -> str:
    value = table.get(key)
    if not isinstance(value, str):
        problem = "is missing" if value is None else f"must be a text, not {type(value).__name__}"
        raise ParameterError(f"{at}{key}", problem)
    return value


def _entries(table: Mapping[str, Any], key: str) -> list[tuple[Any, str]]:
    """With what each is called in an error."""
    value = table.get(key, [])
    if not isinstance(value, list):
        raise ParameterError(key, f"must be a list, not {type(value).__name__}")
    return [(entry, f"{key}[{index}]") for index, entry in enumerate(value)]


def _checked(entry: object, at: str, keys: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(entry, Mapping):
        raise ParameterError(at, f"must be a table of {' and '.join(keys)}, not {type(entry).__name__}")
    for key in entry:
        if key not in keys:
            raise ParameterError(f"{at}.{shown(key)}", unknown_option(key[:100], keys))
    return entry


def _message(entry: object, at: str) -> Message:
    table = _checked(entry, at, ("role", "content"))
    role = _text(table, "role", f"{at}.")
    try:
        return Message(role, _text(table, "content", f"{at}."))  # type: ignore[arg-type]  # Message checks it
    except ParameterError as exc:
        name = exc.param if exc.param.startswith(at) else f"{at}.{exc.param}"
        raise ParameterError(name, shown(exc.problem)) from exc


def _adapter(entry: object, at: str, folder: Path | None) -> Adapter:
    table = {"path": entry} if isinstance(entry, str) else _checked(entry, at, ("path", "scale"))
    path = _placed(at, places.adapter, _text(table, "path", f"{at}."), folder)
    return Adapter(path, params.number(f"{at}.scale", table.get("scale", 1.0), SCALE))


def _placed(key: str, place: Callable[[str, Path | None], str], text: str, folder: Path | None) -> str:
    try:
        return place(text, folder)
    except InvalidRequestError as exc:
        raise ParameterError(key, str(exc)) from exc


def _licenses(value: object) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ParameterError("license", "must be a text or a list of texts")
    return tuple(texts)


# ---- writing


def written(preset: Preset) -> str:
    """The TOML that `parse` reads as this preset.

    Raises:
        InvalidRequestError: it has a text that no file can hold.
    """
    template = preset.go_template if preset.template is None else preset.template
    values = {"from": preset.base, "system": preset.system, "template": template}
    lines = [f"{key} = {_string(value)}" for key, value in values.items() if value is not None]
    lines += _array("license", [_string(text) for text in preset.licenses])
    lines += _array(
        "adapters", [f"{{ path = {_string(each.path)}, scale = {each.scale!r} }}" for each in preset.adapters]
    )
    lines += _array(
        "messages", [f"{{ role = {_string(m.role)}, content = {_string(m.content)} }}" for m in preset.messages]
    )
    settings = {**params.written(preset), **preset.ignored}
    if settings:
        lines += ["", "[parameters]", *(f"{name} = {_value(value)}" for name, value in settings.items())]
    return checked_text("\n".join([*lines, ""]))


def _array(key: str, entries: list[str]) -> list[str]:
    return [f"{key} = [", *(f"  {entry}," for entry in entries), "]"] if entries else []


def _value(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_string, value))}]"
    return _string(value) if isinstance(value, str) else repr(value)


def _string(text: str) -> str:
    """JSON's strings are TOML's, but for DEL, and for pairs of escapes for one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
