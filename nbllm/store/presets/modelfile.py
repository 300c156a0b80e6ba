"""A preset as Ollama's Modelfile, an instruction a line.

    FROM smollm2                        a model, a file, a blob
    ADAPTER ./mario.gguf 0.5            a LoRA file, and how much of it; without a number all
    PARAMETER temperature 0.7           see params.py
    TEMPLATE, SYSTEM, LICENSE text      see blocks.py
    MESSAGE user text                   a turn that goes before each chat
    REQUIRES, RENDERER, PARSER word     kept, without effect

Instructions are in any case. A line that begins with # is a comment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nbllm.core.adapters import SCALE, Adapter
from nbllm.core.messages import Message
from nbllm.core.presets import Preset
from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.store.header import shown
from nbllm.store.presets import blocks, params, places, templates
from nbllm.store.presets.text import checked_text

_ROLES = ("system", "developer", "user", "assistant")
_WITHOUT_EFFECT = ("requires", "renderer", "parser")
_SEVERAL_TIMES = ("ADAPTER", "PARAMETER", "MESSAGE", "LICENSE")


def parse(text: str, *, name: str, folder: Path | None) -> Preset:
    """Read a Modelfile.

    Args:
        name: the preset's.
        folder: what relative paths in it start from; None where paths are not allowed.

    Raises:
        InvalidRequestError: with the number of the line, and what to write instead.
    """
    return _Reading(checked_text(text), folder).preset(name)


class _Reading:
    def __init__(self, text: str, folder: Path | None) -> None:
        self._lines, self._folder = blocks.Lines(text.removeprefix("\ufeff")), folder
        self._given: dict[str, Any] = {}
        self._params: dict[str, Any] = {}
        self._adapters: list[Adapter] = []
        self._messages: list[Message] = []
        self._licenses: list[str] = []
        self._first_lines: dict[str, int] = {}
        self._instructions: Mapping[str, Callable[[str], None]] = {
            "FROM": self._from,
            "ADAPTER": self._adapter,
            "PARAMETER": self._parameter,
            "TEMPLATE": self._template,
            "SYSTEM": self._system,
            "MESSAGE": self._message,
            "LICENSE": lambda rest: self._licenses.append(self._lines.value(rest)),
            **{word.upper(): self._without_effect(word) for word in _WITHOUT_EFFECT},
        }

    def preset(self, name: str) -> Preset:
        while (line := self._lines.next()) is not None:
            if line.strip() and not line.lstrip().startswith("#"):
                self._instruction(line)
        if "base" not in self._given:
            raise InvalidRequestError("there is no FROM, which says what the model is made of: FROM smollm2")
        read = params.read(self._params)
        return Preset(
            name=name,
            sampling=read.sampling,
            context_length=read.context_length,
            threads=read.threads,
            ignored=read.ignored,
            adapters=tuple(self._adapters),
            messages=tuple(self._messages),
            licenses=tuple(self._licenses),
            **self._given,
        )

    def _instruction(self, line: str) -> None:
        number = self._lines.number
        word, *rest = line.split(maxsplit=1)
        instruction = word.upper()
        run = self._instructions.get(instruction)
        if run is None:
            raise InvalidRequestError(f"line {number}: {self._unknown(word)}")
        if not rest:
            raise InvalidRequestError(f'line {number}: nothing follows {instruction}; an empty text is ""')
        self._note(instruction, number)
        try:
            run(rest[0])
        except ParameterError as exc:
            raise InvalidRequestError(f"line {number}: {instruction} {exc}") from exc

    def _unknown(self, word: str) -> str:
        import difflib

        close = difflib.get_close_matches(word[:100].upper(), list(self._instructions), n=1)
        if close:
            return f"{shown(word)!r:.100} is no instruction; did you mean {close[0]}?"
        known = [name for name in self._instructions if name.casefold() not in _WITHOUT_EFFECT]
        return (
            f"{shown(word)!r:.100} is no instruction; those are {', '.join(known)}, "
            'and a text of several lines has """ before and after it'
        )

    def _note(self, what: str, number: int) -> None:
        """Raises InvalidRequestError where what may be said once is said again."""
        if what not in _SEVERAL_TIMES and self._first_lines.setdefault(what, number) != number:
            raise InvalidRequestError(
                f"line {number}: {what} is there already, in line {self._first_lines[what]}; leave one of them out"
            )

    def _from(self, rest: str) -> None:
        self._given["base"] = self._placed("FROM", places.base, self._lines.value(rest))

    def _adapter(self, rest: str) -> None:
        path, scale = _path_and_scale(rest)
        self._adapters.append(Adapter(self._placed("ADAPTER", places.adapter, path), scale))

    def _placed(self, instruction: str, place: Callable[[str, Path | None], str], text: str) -> str:
        try:
            return place(text, self._folder)
        except InvalidRequestError as exc:
            raise InvalidRequestError(f"line {self._lines.number}: {instruction} {exc}") from exc

    def _template(self, rest: str) -> None:
        self._given["template"], self._given["go_template"] = templates.split(self._lines.value(rest))

    def _system(self, rest: str) -> None:
        self._given["system"] = self._lines.value(rest)

    def _parameter(self, rest: str) -> None:
        name, text = self._two(rest, "PARAMETER temperature 0.7")
        name, number = name.casefold(), self._lines.number
        value = self._lines.value(text)
        if name == "stop":
            value_of_stop = [*self._params.get("stop", ()), value]
            params.read({"stop": value_of_stop})
            self._params["stop"] = value_of_stop
            return
        self._note(f"PARAMETER {shown(name)}", number)
        params.read({name: value, **_same_thing(name, self._params)})
        self._params[name] = value

    def _message(self, rest: str) -> None:
        number = self._lines.number
        role, text = self._two(rest, "MESSAGE user Hello!")
        role = role.casefold()
        if role not in _ROLES:
            raise InvalidRequestError(f"line {number}: MESSAGE {shown(role)!r:.100} is none of {', '.join(_ROLES)}")
        self._messages.append(Message(role, self._lines.value(text)))  # type: ignore[arg-type]  # checked above

    def _two(self, rest: str, example: str) -> tuple[str, str]:
        words = rest.split(maxsplit=1)
        if len(words) < 2:
            raise InvalidRequestError(f"line {self._lines.number}: something is missing; write for example {example}")
        return words[0], words[1]

    def _without_effect(self, word: str) -> Callable[[str], None]:
        def keep(rest: str) -> None:
            self._note(f"PARAMETER {word}", self._lines.number)
            self._params[word] = self._lines.value(rest)

        return keep


def _same_thing(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What was said before under the parameter's other name."""
    pairs = {**params.OLLAMAS, **{theirs: ours for ours, theirs in params.OLLAMAS.items()}}
    other = pairs.get(name, "")
    return {other: given[other]} if other in given else {}


def _path_and_scale(rest: str) -> tuple[str, float]:
    text = rest.strip()
    if text.startswith('"') and len(text) > 1:
        end = text.rindex('"')
        path, tail = (text[1:end], text[end + 1 :].strip()) if end else (text[1:], "")
        return path, params.number("scale", tail, SCALE) if tail else 1.0
    words = text.rsplit(maxsplit=1)
    if len(words) == 2 and params.is_number(words[1]):
        return words[0], params.number("scale", words[1], SCALE)
    return text, 1.0


# ---- writing


def written(preset: Preset) -> str:
    """The Modelfile that `parse` reads as this preset, in Ollama's own words as far as it has them.

    Raises:
        InvalidRequestError: it has a text that no file can hold.
    """
    lines = [f"FROM {blocks.written(preset.base)}"]
    lines += [f"ADAPTER {_adapter_text(adapter)}" for adapter in preset.adapters]
    lines += _parameter_lines(preset)
    template = preset.go_template if preset.template is None else preset.template
    for instruction, text in (("TEMPLATE", template), ("SYSTEM", preset.system)):
        if text is not None:
            lines.append(f"{instruction} {blocks.written(text)}")
    lines += [f"MESSAGE {message.role} {blocks.written(message.content)}" for message in preset.messages]
    lines += [f"LICENSE {blocks.written(license_text)}" for license_text in preset.licenses]
    return checked_text("\n".join([*lines, ""]))


def _parameter_lines(preset: Preset) -> list[str]:
    values = params.written(preset)
    stops = values.pop("stop", [])
    lines = [f"PARAMETER {_ollamas_name(name, value)} {value!r}" for name, value in values.items()]
    lines += [f"PARAMETER stop {blocks.written(text)}" for text in stops]
    for name, text in preset.ignored.items():
        instruction = name.upper() if name in _WITHOUT_EFFECT else f"PARAMETER {name}"
        lines.append(f"{instruction} {blocks.written(text)}")
    return lines


def _ollamas_name(name: str, value: object) -> str:
    """Ollama means no limit by num_predict 0."""
    return name if name == "max_tokens" and value == 0 else params.OLLAMAS.get(name, name)


def _adapter_text(adapter: Adapter) -> str:
    path = adapter.path
    is_plain = path.split() == [path] and not path.startswith('"')
    return (path if is_plain else f'"{path}"') + ("" if adapter.scale == 1 else f" {adapter.scale!r}")
