"""From the layers of a model of the registry to a preset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nbllm.core.adapters import Adapter
from nbllm.core.messages import Message
from nbllm.core.presets import Preset
from nbllm.core.sizes import size_text
from nbllm.errors import InvalidRequestError
from nbllm.store.header import shown
from nbllm.store.presets import params, templates
from nbllm.store.pulling.manifest import Layer, Manifest
from nbllm.store.remote.errors import PullError

_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the model is made of here, and what of it has no effect, a line each."""

    preset: Preset
    notes: tuple[str, ...]


def recipe(name: str, manifest: Manifest, read: Callable[[Layer], bytes]) -> Recipe:
    """Read the small layers.

    Raises:
        PullError: one cannot be got, or is not what its kind says.
    """
    notes: list[str] = []
    texts = _Texts(name, manifest, read)
    given = _parameters(texts, notes)
    jinja, go = _template(texts, notes)
    notes += _left_out(manifest)
    preset = Preset(
        name=name,
        base=manifest.of("model")[0].digest,
        system=texts.last("system"),
        messages=_messages(texts),
        sampling=given.sampling,
        template=jinja,
        go_template=go,
        adapters=tuple(Adapter(layer.digest) for layer in manifest.of("adapter")),
        context_length=given.context_length,
        threads=given.threads,
        licenses=texts.all("license"),
        ignored=given.ignored,
    )
    return Recipe(preset, tuple(notes))


class _Texts:
    """The layers that are texts, got when they are asked for."""

    def __init__(self, name: str, manifest: Manifest, read: Callable[[Layer], bytes]) -> None:
        self._name, self._manifest, self._read = name, manifest, read

    def all(self, kind: str) -> tuple[str, ...]:
        return tuple(self._text(layer) for layer in self._manifest.of(kind))

    def last(self, kind: str) -> str | None:
        """Each layer of a kind replaces those before it."""
        layers = self._manifest.of(kind)
        return self._text(layers[-1]) if layers else None

    def json(self, kind: str, wanted: type) -> Any:
        """Empty where there is none."""
        import json

        text = self.last(kind)
        if text is None:
            return wanted()
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise self.wrong(kind, "is not JSON") from None
        if value is None:
            return wanted()
        if not isinstance(value, wanted):
            raise self.wrong(kind, f"is no {wanted.__name__}")
        return value

    def wrong(self, kind: str, what: str) -> PullError:
        return PullError(f"{self._name} cannot be pulled: its layer {kind} {what}")

    def _text(self, layer: Layer) -> str:
        try:
            return self._read(layer).decode()
        except UnicodeDecodeError:
            raise self.wrong(layer.kind, "is not UTF-8 text") from None


def _parameters(texts: _Texts, notes: list[str]) -> params.Params:
    """Those that mean something here: one that Ollama has added must not keep a model away."""
    given: Mapping[str, Any] = texts.json("params", dict)
    known, unknown = {}, []
    for key, value in given.items():
        try:
            params.read({key: value})
        except InvalidRequestError:
            unknown.append(shown(key))
        else:
            known[key] = value
    if unknown:
        notes.append(f"without its parameters {', '.join(unknown)[:200]}, which mean nothing here")
    try:
        return params.read(known)
    except InvalidRequestError as exc:
        raise texts.wrong("params", f"cannot be read: {exc}") from exc


def _template(texts: _Texts, notes: list[str]) -> tuple[str | None, str | None]:
    text = texts.last("template")
    if text is None or not text.strip():
        return None, None
    jinja, go = templates.split(text)
    if go is not None:
        notes.append(templates.GO_NOTE)
    return jinja, go


def _messages(texts: _Texts) -> tuple[Message, ...]:
    return tuple(_message(entry, texts) for entry in texts.json("messages", list))


def _message(entry: object, texts: _Texts) -> Message:
    role = entry.get("role") if isinstance(entry, dict) else None
    content = entry.get("content", "") if isinstance(entry, dict) else None
    if role not in _ROLES or not isinstance(content, str):
        raise texts.wrong("messages", f"has one that is no text of {', '.join(_ROLES)}")
    return Message(role, content)


def _left_out(manifest: Manifest) -> list[str]:
    projectors = manifest.of("projector")
    size = size_text(sum(layer.size for layer in projectors))
    notes = [f"without its projector of {size}: pictures cannot be sent yet"] if projectors else []
    if manifest.unknown:
        kinds = ", ".join(map(shown, manifest.unknown))[:200]
        notes.append(f"without its layers of the kind {kinds}, which mean nothing here")
    return notes
