"""The user's prompt templates: Markdown files, for `%chat -t NAME -p language=French`.

    ---
    name: translate                  # else the name of the file
    description: Into another language, with its tone
    model: smollm2
    system: You are a translator.
    parameters: {temperature: 0.2}   # options of Model.chat
    defaults: {language: English}    # values that -p may leave out
    ---
    Translate into {language}:

    {input}

The front matter may be missing, and so may every key in it. `{input}` is the text of the cell; without it, the text
stands after the body. Every other `{name}` is a place for a value, where it would be one in a cell, and `{{name}}`
stands for `{name}`. What is filled in is never expanded again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from nbllm.core import SamplingParams, unknown_option
from nbllm.errors import InvalidRequestError

_MAX_BYTES = 1_000_000
_INPUT = "input"
_TEXTS = ("name", "description", "model", "system")
_KEYS = (*_TEXTS, "parameters", "defaults")

Folders = Sequence[str | os.PathLike[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """One file, read and checked.

    Attributes:
        parameters: options of Model.chat, known to be valid.
        defaults: what places hold that are given no value.
        problem: why it cannot be used, in one line that names the file; "" if it can.
    """

    name: str
    path: Path
    description: str = ""
    model: str | None = None
    system: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    problem: str = ""

    @property
    def places(self) -> tuple[str, ...]:
        """The names in the body that take a value, `input` among them if it is there."""
        return _places(self.body)

    def fill(self, params: Mapping[str, str], text: str) -> str:
        """The prompt: the body with `params` and `text` in their places.

        Raises:
            InvalidRequestError: a place has no value, or a value no place; the message names it.
        """
        places = self.places
        for name in params:
            if problem := _refusal(name, places):
                raise _wrong(self.path, problem)
        values = {**self.defaults, **params} | ({_INPUT: text} if text.strip() else {})
        if missing := [place for place in places if place not in values]:
            raise _wrong(self.path, _missing(missing))
        filled = self._filled(values)
        parts = [filled] if _INPUT in places else [filled, text]
        return "\n\n".join(part for part in parts if part)

    def _filled(self, values: Mapping[str, str]) -> str:
        from nbllm.notebook.interpolation import interpolate

        try:
            return interpolate(self.body, values, _plain)
        except InvalidRequestError as exc:
            raise _wrong(self.path, str(exc)) from exc


def find(name: str, folders: Folders) -> Template:
    """The template of that name: of a file, first folder first, else of a front matter.

    Raises:
        InvalidRequestError: there is none, or its file cannot be used; the message says what to change.
    """
    if not _is_name(name):
        raise InvalidRequestError(
            f"-t takes the name of a template, not {name!r:.100}: its file is looked for in {_shown(folders)}"
        )
    files = _files(folders)
    path = files.get(name) or files.get(name.removesuffix(".md"))
    template = _read(path) if path else next((one for one in map(_read, files.values()) if one.name == name), None)
    if template is None:
        raise InvalidRequestError(_not_found(name, folders))
    if template.problem:
        raise InvalidRequestError(template.problem)
    return template


def listed(folders: Folders) -> list[Template]:
    """Every template by name, also those that cannot be used."""
    templates = [_read(path) for path in _files(folders).values()]
    by_name: dict[str, Template] = {}
    for template in sorted(templates, key=lambda template: template.name != template.path.stem):  # as `find` does
        by_name.setdefault(template.name, template)
    return sorted(by_name.values(), key=lambda template: (template.name.casefold(), template.name))


def _files(folders: Folders) -> dict[str, Path]:
    """By name. No path is ever made from a name, so that none leads out of the folders."""
    files: dict[str, Path] = {}
    for folder in folders:
        for path in _markdown_files(folder):
            files.setdefault(path.stem, path)
    return files


def _markdown_files(folder: str | os.PathLike[str]) -> list[Path]:
    try:
        paths = sorted(Path(os.path.abspath(os.path.expanduser(folder))).iterdir())
        return [path for path in paths if path.suffix.lower() == ".md" and _is_name(path.stem) and path.is_file()]
    except (OSError, ValueError):  # not there, not a folder, not for us, or no path at all
        return []


def _is_name(name: str) -> bool:
    return name.isprintable() and bool(name.strip()) and not name.startswith(".") and not set(name) & set("/\\:")


def _read(path: Path) -> Template:
    try:
        return _parsed(path, _text(path))
    except InvalidRequestError as exc:
        return Template(name=path.stem, path=path, problem=str(_wrong(path, str(exc))))


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as exc:
        raise InvalidRequestError(f"cannot be read: {exc.strerror or exc}") from exc
    if len(content) > _MAX_BYTES:
        raise InvalidRequestError(f"is larger than {_MAX_BYTES:,} bytes; shorten it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise InvalidRequestError(f"is not UTF-8 text, at byte {exc.start:,}; save it as UTF-8") from exc
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _parsed(path: Path, text: str) -> Template:
    from nbllm.notebook.front_matter import split

    front, rest = split(text)
    for key in front.nodes:
        if key not in _KEYS:
            raise InvalidRequestError(_unknown(key))
    name = front.text("name") or path.stem
    if not _is_name(name):
        raise InvalidRequestError(f"name: {name!r:.100} is no name; leave out slashes, colons, and dots before it")
    body = rest.strip("\n").rstrip()
    return Template(
        name=name,
        path=path,
        description=" ".join((front.text("description") or "").split()),
        model=front.text("model") or None,
        system=front.text("system"),
        parameters=_parameters(front.mapping("parameters")),
        defaults=_defaults(front.texts("defaults"), body),
        body=body,
    )


def _unknown(key: str) -> str:
    if key in [spec.name for spec in fields(SamplingParams)]:
        return f"{key} is one of the parameters; write parameters: {{{key}: ...}}"
    shown = key if key.isprintable() else ascii(key)
    return f"{shown:.100} {unknown_option(key, _KEYS)}"


def _parameters(parameters: dict[Any, Any]) -> dict[str, Any]:
    from nbllm.session.requests import Options

    for name in parameters:
        if name in _KEYS:
            raise InvalidRequestError(f"{name} stands beside the parameters, not in them; move it out")
    named = {str(name): value for name, value in parameters.items()}
    try:
        Options.of(named)
    except InvalidRequestError as exc:
        raise InvalidRequestError(f"parameters: {exc}") from exc
    return named


def _defaults(defaults: dict[str, str], body: str) -> dict[str, str]:
    places = _places(body) if defaults else ()
    for name in defaults:
        if name not in places:
            raise InvalidRequestError(f"defaults: {_no_place(name, places)}")
    return defaults


def _places(body: str) -> tuple[str, ...]:
    from nbllm.notebook.interpolation import interpolate

    asked = _Asked()
    interpolate(body, asked, _plain)
    return tuple(asked.names)


class _Asked(Mapping[str, object]):
    """No names at all, which remembers those that were looked for."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}

    def __contains__(self, name: object) -> bool:
        self.names[str(name)] = None
        return False

    def __getitem__(self, name: str) -> object:
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _plain(value: object, spec: str) -> str:
    if spec or not isinstance(value, str):
        raise InvalidRequestError("a template's place is {name} and no more; double the braces for the text itself")
    return value


def _refusal(name: str, places: Sequence[str]) -> str:
    """What is wrong with `-p name=...`; "" is nothing."""
    if name == _INPUT:
        return "-p input: {input} is the text of the cell; write it there"
    return "" if name in places else f"-p: {_no_place(name, places)}"


def _no_place(name: str, places: Sequence[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, places, n=1)
    hint = f"did you mean {close[0]}?" if close else f"it has {_some(places) or 'none'}"
    return f"the body has no place named {name!r:.100}; {hint}"


def _missing(places: Sequence[str]) -> str:
    if _INPUT in places:
        return "it needs a text for {input}; write one in the cell"
    given = " ".join(f"-p {place}=VALUE" for place in places)
    return f"a value is missing: {given:.300} (where braces are meant, write {{{{{places[0]:.100}}}}})"


def _not_found(name: str, folders: Folders) -> str:
    import difflib

    names = [template.name for template in listed(folders)]
    where = _shown(folders)
    if not names:
        return f"no template {name!r:.100}, nor any other; put a Markdown file NAME.md into {where}"
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"the closest names: {', '.join(close)}" if close else f"there are {_some(names)}"
    return f"no template {name!r:.100}; {hint} (looked in {where})"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")


def _shown(folders: Folders) -> str:
    from nbllm.store.header import shown

    return ", ".join(shown(os.fspath(folder)) for folder in folders)


def _wrong(path: Path, problem: str) -> InvalidRequestError:
    from nbllm.store.header import shown

    return InvalidRequestError(f"template {shown(path)}: {problem}")
