"""What is saved of a notebook with chat widgets."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager, LargeFileManager
from jupyter_server.utils import ensure_async
from traitlets.config import Config as Traits

from nbllm.config import load_config
from nbllm.server import frozen
from nbllm.server.frozen import STATE, VIEW, freeze
from nbllm.store import chats
from tests.server.serving import Site

ID, OTHER_ID = "20261122-0a1b2c3d4e5f", "20261122-ffffffffffff"
BUNDLE = {"text/markdown": "**You**: hi\n\n<details>\n", "text/plain": "You: hi"}


def shown(chat_id: Any = ID, model_id: str = "m1", kind: str = "display_data", **data: Any) -> dict[str, Any]:
    """An output with a chat's widget."""
    view = {"version_major": 2, "version_minor": 1, "model_id": model_id}
    count = {"execution_count": 1} if kind == "execute_result" else {}
    return {
        "output_type": kind,
        "data": {VIEW: view, "text/plain": "ChatWidget()", **data},
        "metadata": {"nbllm": {"chat": chat_id}, "kept": True},
        **count,
    }


def other_widget(model_id: str = "m9") -> dict[str, Any]:
    return {"output_type": "display_data", "data": {VIEW: {"model_id": model_id}, "text/plain": "x"}, "metadata": {}}


def notebook(*outputs: dict[str, Any], widgets: dict[str, Any] | None = None) -> dict[str, Any]:
    cell = {
        "id": "a",
        "cell_type": "code",
        "execution_count": 1,
        "metadata": {},
        "source": "%llm chat",
        "outputs": list(outputs),
    }
    prose = {"id": "b", "cell_type": "markdown", "metadata": {}, "source": "Prose"}
    state = {} if widgets is None else {"widgets": {STATE: {"version_major": 2, "version_minor": 0, "state": widgets}}}
    return {"cells": [prose, cell], "metadata": state, "nbformat": 4, "nbformat_minor": 5}


def outputs_of(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [output for cell in notebook["cells"] for output in cell.get("outputs", ())]


def found(chat_id: str) -> dict[str, str] | None:
    return BUNDLE if chat_id == ID else None


# ---- outputs


@pytest.mark.parametrize("kind", ["display_data", "execute_result"])
def test_widget_gives_way_to_the_bundle(kind: str) -> None:
    output = shown(kind=kind, **{"text/html": "<b>other</b>"})
    before = notebook(copy.deepcopy(output))
    after = copy.deepcopy(before)
    freeze(after, found)
    expected = copy.deepcopy(before)
    expected["cells"][1]["outputs"][0]["data"] = BUNDLE
    assert after == expected
    nbformat.validate(nbformat.from_dict(after))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    "output",
    [
        pytest.param(shown(OTHER_ID), id="no bundle"),
        pytest.param(shown(None), id="no id"),
        pytest.param(shown(5), id="a number for an id"),
        pytest.param(shown([ID]), id="a list for an id"),
        pytest.param(other_widget(), id="another's widget"),
        pytest.param({**shown(), "data": {"text/plain": "a"}}, id="no widget"),
        pytest.param({**shown(), "metadata": {"nbllm": ID}}, id="other metadata"),
        pytest.param({"output_type": "stream", "name": "stdout", "text": "a"}, id="a stream"),
    ],
)
def test_other_outputs_stay_as_they_are(output: dict[str, Any]) -> None:
    before = notebook(output)
    after = copy.deepcopy(before)
    freeze(after, found)
    assert after == before


def test_two_outputs_of_a_chat_are_frozen_with_one_read() -> None:
    read: list[str] = []

    def count(chat_id: str) -> dict[str, str] | None:
        read.append(chat_id)
        return found(chat_id)

    after = notebook(shown(), shown(model_id="m2"), shown(OTHER_ID), shown(OTHER_ID))
    freeze(after, count)
    assert read == [ID, OTHER_ID]
    first, second = (output["data"] for output in outputs_of(after)[:2])
    assert first == second == BUNDLE
    assert first is not second


def test_reads_of_one_save_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "_MAX_READS", 3)
    many = notebook(*(shown(f"chat-{number:04}") for number in range(9)))
    freeze(many, lambda chat_id: BUNDLE)
    assert [VIEW in output["data"] for output in outputs_of(many)] == [False] * 3 + [True] * 6

    monkeypatch.setattr(frozen, "_MAX_BYTES", sum(map(len, BUNDLE.values())) + 1)
    large = notebook(*(shown(f"chat-{number:04}") for number in range(9)))
    freeze(large, lambda chat_id: BUNDLE)
    assert [VIEW in output["data"] for output in outputs_of(large)] == [False] * 2 + [True] * 7


# ---- widget state


def chat_model(layout: str = "l1") -> dict[str, Any]:
    state = {"_anywidget_id": "nbllm.notebook.widget.chat_widget.ChatWidget", "layout": f"IPY_MODEL_{layout}"}
    return {"model_name": "AnyModel", "model_module": "anywidget", "state": {**state, "_esm": "export default {}"}}


def layout() -> dict[str, Any]:
    return {"model_name": "LayoutModel", "model_module": "@jupyter-widgets/base", "state": {}}


def box(*children: str) -> dict[str, Any]:
    return {"model_name": "VBoxModel", "state": {"children": [f"IPY_MODEL_{child}" for child in children]}}


def left(notebook: dict[str, Any]) -> set[str]:
    return set(notebook["metadata"]["widgets"][STATE]["state"])


@pytest.mark.parametrize(
    ("outputs", "widgets", "expected"),
    [
        pytest.param([shown()], {"m1": chat_model(), "l1": layout()}, set(), id="it and its layout go"),
        pytest.param(
            [shown(), other_widget()],
            {"m1": chat_model(), "l1": layout(), "m9": box(), "l9": layout()},
            {"m9", "l9"},
            id="others stay",
        ),
        pytest.param(
            [shown()],
            {"m1": chat_model(), "l1": layout(), "m9": {"state": {"layout": "IPY_MODEL_l1"}}},
            {"m9", "l1"},
            id="a shared layout stays",
        ),
        pytest.param(
            [shown(), other_widget()],
            {"m1": chat_model(), "l1": layout(), "m9": box("m1")},
            {"m1", "l1", "m9"},
            id="one in a box stays",
        ),
        pytest.param([shown()], {"m1": box("m2"), "m2": box()}, {"m1", "m2"}, id="not of nbllm"),
        pytest.param([shown(OTHER_ID)], {"m1": chat_model()}, {"m1"}, id="not frozen"),
        pytest.param(
            [shown(), shown(OTHER_ID, "m1")], {"m1": chat_model(), "l1": layout()}, {"m1", "l1"}, id="still shown"
        ),
        pytest.param(
            [shown(), shown(model_id="m2")],
            {"m1": chat_model(), "m2": chat_model(), "l1": layout()},
            set(),
            id="two with one layout",
        ),
    ],
)
def test_state_of_a_frozen_widget_goes(
    outputs: list[dict[str, Any]], widgets: dict[str, Any], expected: set[str]
) -> None:
    after = notebook(*copy.deepcopy(outputs), widgets=copy.deepcopy(widgets))
    freeze(after, found)
    assert left(after) == expected


# ---- any JSON

_SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.just(ID) | st.just("IPY_MODEL_m1")
_KEYS = st.sampled_from(
    [
        "cells",
        "outputs",
        "data",
        "metadata",
        "nbllm",
        "chat",
        VIEW,
        "model_id",
        "widgets",
        STATE,
        "state",
        "source",
        "x",
    ]
)
_ANY = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4), max_leaves=20
)


def _notebooks(noise: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Notebooks with chats, in which any part may be `noise` or missing."""

    def record(**parts: Any) -> st.SearchStrategy[Any]:
        return st.fixed_dictionaries({}, optional={name: part | noise for name, part in parts.items()})

    views = record(**{VIEW: record(model_id=st.sampled_from(["m1", "m2"])), "text/plain": _SCALARS})
    marks = record(nbllm=record(chat=st.sampled_from([ID, OTHER_ID])), x=_ANY)
    outputs = st.builds(shown, st.sampled_from([ID, OTHER_ID]), st.sampled_from(["m1", "m2"]))
    cells = record(source=_ANY, outputs=st.lists(outputs | record(data=views, metadata=marks) | noise, max_size=3))
    models = st.builds(chat_model, st.sampled_from(["m2", "l1"])) | st.builds(layout) | record(state=_ANY) | noise
    state = st.dictionaries(st.sampled_from(["m1", "m2", "l1"]), models)
    return st.fixed_dictionaries(
        {
            "cells": st.lists(cells | noise, min_size=1, max_size=3) | noise,
            "metadata": st.fixed_dictionaries(
                {"widgets": st.fixed_dictionaries({STATE: st.fixed_dictionaries({"state": state | noise})}), "x": _ANY}
            )
            | noise,
        }
    )


@settings(max_examples=300, deadline=None)
@given(before=_notebooks(st.nothing()) | _notebooks(_SCALARS) | _ANY)
def test_any_notebook_is_taken_and_only_the_chats_change(before: Any) -> None:
    after = copy.deepcopy(before)
    freeze(after, found)
    again = copy.deepcopy(after)
    freeze(again, found)
    assert again == after
    assert ID not in {chat_id for _, chat_id in frozen._chat_outputs(after)}
    assert _without_chats(after) == _without_chats(before)


def _without_chats(value: Any) -> Any:
    """The notebook but for what may change: the data of outputs, and saved widgets."""
    kept = copy.deepcopy(value)
    for output in frozen._outputs(kept):
        output["data"] = {}
    frozen._state(kept).clear()
    return kept


# ---- saving


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "chats"
    chats.write_bundle(ID, BUNDLE, place)
    return place


def _saved(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "a.ipynb").read_text())
    return content


Manager = LargeFileManager | AsyncLargeFileManager


@pytest.fixture(params=[LargeFileManager, AsyncLargeFileManager], ids=["sync", "async"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Manager:
    (tmp_path / "root").mkdir()
    kind: Callable[..., Manager] = request.param
    # no signatures: their database would stay open
    return kind(root_dir=str(tmp_path / "root"), config=Traits({"NotebookNotary": {"db_file": ":memory:"}}))


async def test_saved_file_holds_the_bundle(manager: Manager, place: Path, tmp_path: Path) -> None:
    frozen.register(manager, place)
    content = notebook(shown(), widgets={"m1": chat_model(), "l1": layout()})
    model = {"type": "notebook", "format": "json", "content": content}
    await ensure_async(manager.save(model, "a.ipynb"))
    saved = _saved(tmp_path / "root")
    (output,) = outputs_of(saved)
    assert {kind: "".join(text) for kind, text in output["data"].items()} == BUNDLE
    assert output["metadata"] == {"nbllm": {"chat": ID}, "kept": True}
    assert left(saved) == set()
    again = await ensure_async(manager.get("a.ipynb"))
    assert outputs_of(again["content"])[0]["data"] == BUNDLE


@pytest.mark.parametrize(
    "model",
    [
        pytest.param({"type": "file", "format": "text", "content": VIEW}, id="a file"),
        pytest.param({"type": "directory"}, id="a folder"),
    ],
)
async def test_other_files_are_saved_as_they_are(
    manager: Manager, place: Path, tmp_path: Path, model: dict[str, Any]
) -> None:
    frozen.register(manager, place)
    await ensure_async(manager.save(model, "a"))
    path = tmp_path / "root" / "a"
    assert path.is_dir() or path.read_text() == VIEW


async def test_failure_of_ours_loses_nothing(
    manager: Manager, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(frozen, "freeze", fail)
    frozen.register(manager, place)
    await ensure_async(manager.save({"type": "notebook", "content": notebook(shown())}, "a.ipynb"))
    assert VIEW in outputs_of(_saved(tmp_path / "root"))[0]["data"]
    assert "a notebook is saved as it is" in caplog.text


@pytest.mark.parametrize("model", [None, {}, {"type": "notebook"}, {"type": "notebook", "content": "text"}], ids=repr)
def test_hook_takes_any_model(manager: Manager, place: Path, model: Any, caplog: pytest.LogCaptureFixture) -> None:
    frozen.register(manager, place)
    manager.run_pre_save_hooks(model=model, path="a.ipynb")  # type: ignore[no-untyped-call]
    assert caplog.text == ""


def test_extension_registers_it(site: Site) -> None:
    place = chats.folder(load_config())
    chats.write_bundle(ID, BUNDLE, place)
    body = {"type": "notebook", "format": "json", "content": notebook(shown())}
    assert site.request("PUT", "api/contents/a.ipynb", body).status == 201
    assert outputs_of(_saved(site.folder))[0]["data"].keys() == BUNDLE.keys()
