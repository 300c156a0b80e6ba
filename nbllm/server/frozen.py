"""Saved notebooks hold the transcripts of chats, not their widgets, which would be dead when the file is opened again.

An output that says `{"nbllm": {"chat": ID}}` in its metadata has the chat's bundle (nbllm.store.chats) for its data in
the file. The page goes on with its own copy, and shows the widget still.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbllm.store.chats import MAX_BUNDLE_BYTES, read_bundle

if TYPE_CHECKING:
    from jupyter_server.services.contents.manager import ContentsManager

VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
_MAX_READS = 64
"""Chats of one notebook that are looked up in a save, which the server's event loop waits for: with `_MAX_BYTES` of
text in all, whatever comes after stays as it is."""
_MAX_BYTES = 4 * MAX_BUNDLE_BYTES
_REFERENCE = "IPY_MODEL_"
_OWN = "nbllm."
"""How the ids of our classes begin in the state of an anywidget."""
_LAYOUT = "LayoutModel"
_logger = logging.getLogger("nbllm.frozen")

Bundle = dict[str, str]


def register(manager: ContentsManager, place: Path) -> None:
    """Freeze the chats in every notebook that is saved from now on; `place` is the folder of chats."""

    def freeze_chat_widgets(*, model: Any, **_: Any) -> None:  # Jupyter asks for its name when it fails
        try:
            if isinstance(model, dict) and model.get("type") == "notebook":
                freeze(model.get("content"), lambda chat_id: read_bundle(chat_id, place))
        except Exception:  # it is the user's work that is saved here
            _logger.exception("a notebook is saved as it is: its chats could not be frozen")

    manager.register_pre_save_hook(freeze_chat_widgets)  # type: ignore[no-untyped-call]


def freeze(notebook: object, read: Callable[[str], Bundle | None]) -> None:
    """Change the notebook in place: bundles for widgets, as far as `read` finds them, and their state is dropped."""
    bundles = _Bundles(read)
    frozen: set[str] = set()
    for output, chat_id in list(_chat_outputs(notebook)):
        bundle = bundles.get(chat_id)
        if bundle is not None:
            frozen.add(_model_id(output["data"][VIEW]))
            output["data"] = dict(bundle)
    if frozen:
        shown = {_model_id(output["data"][VIEW]) for output in _outputs(notebook) if VIEW in output["data"]}
        _drop(_state(notebook), frozen - shown)


class _Bundles:
    """What was read for one notebook, each chat once, and no more than a save may take."""

    def __init__(self, read: Callable[[str], Bundle | None]) -> None:
        self._read = read
        self._known: dict[str, Bundle | None] = {}
        self._num_bytes = 0

    def get(self, chat_id: str) -> Bundle | None:
        if chat_id not in self._known and len(self._known) < _MAX_READS and self._num_bytes < _MAX_BYTES:
            bundle = self._known[chat_id] = self._read(chat_id)
            self._num_bytes += sum(map(len, (bundle or {}).values()))
        return self._known.get(chat_id)


# ---- what is in a notebook, which may be anything


def _outputs(notebook: object) -> Iterator[dict[str, Any]]:
    """Those that have data."""
    for cell in _list(_dict(notebook).get("cells")):
        for output in _list(_dict(cell).get("outputs")):
            if isinstance(output, dict) and isinstance(output.get("data"), dict):
                yield output


def _chat_outputs(notebook: object) -> Iterator[tuple[dict[str, Any], str]]:
    """The outputs that show a chat's widget, with the chat's id."""
    for output in _outputs(notebook):
        chat_id = _dict(_dict(output.get("metadata")).get("nbllm")).get("chat")
        if VIEW in output["data"] and isinstance(chat_id, str):
            yield output, chat_id


def _model_id(view: object) -> str:
    found = _dict(view).get("model_id")
    return found if isinstance(found, str) else ""


def _state(notebook: object) -> dict[str, Any]:
    """The saved widgets, by their model's id."""
    widgets = _dict(_dict(_dict(notebook).get("metadata")).get("widgets"))
    return _dict(_dict(widgets.get(STATE)).get("state"))


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


# ---- the state of widgets


def _drop(state: dict[str, Any], model_ids: Iterable[str]) -> None:
    """Take out those that are ours and that no other widget holds, and their layouts likewise."""
    ours = {model_id for model_id in model_ids if _is_ours(state.get(model_id))}
    if not ours:
        return
    held = _referred(entry for model_id, entry in state.items() if model_id not in ours)
    dropped = [state.pop(model_id) for model_id in ours - held]
    for model_id in _referred(dropped) - held - _referred(state.values()):
        if _dict(state.get(model_id)).get("model_name") == _LAYOUT:
            del state[model_id]


def _is_ours(entry: object) -> bool:
    kind = _dict(_dict(entry).get("state")).get("_anywidget_id")
    return isinstance(kind, str) and kind.startswith(_OWN)


def _referred(entries: Iterable[object]) -> set[str]:
    """The ids of the widgets that these name as a trait or in a list."""
    found: set[str] = set()
    for entry in entries:
        values: Mapping[str, object] = _dict(_dict(entry).get("state"))
        for value in values.values():
            for name in value if isinstance(value, list) else (value,):
                if isinstance(name, str) and name.startswith(_REFERENCE):
                    found.add(name.removeprefix(_REFERENCE))
    return found
