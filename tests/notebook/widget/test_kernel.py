"""The widget in real kernels, answered by the bundled model: with a page that is this test, and under nbclient."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from nbllm.notebook.widget.shelf import Shelf
from tests.notebook.kernel import TIMEOUT_S, environment, started

pytestmark = [pytest.mark.model, pytest.mark.usefixtures("smollm2_path")]

VIEW = "application/vnd.jupyter.widget-view+json"
OPTIONS = "system='You are a helpful assistant.', temperature=0, max_tokens=30"
CHAT = f"import nbllm\nw = nbllm.ChatWidget({OPTIONS})\nw"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setenv("NBLLM_CHATS_DIR", str(tmp_path / "chats"))
    return Shelf()


def until(client: Any, is_it: Any) -> list[dict[str, Any]]:
    """What the kernel says up to the message that is looked for."""
    heard: list[dict[str, Any]] = []
    deadline = time.monotonic() + TIMEOUT_S
    while not heard or not is_it(heard[-1]):
        heard.append(client.get_iopub_msg(timeout=deadline - time.monotonic()))
    return heard


def test_page_asks_and_the_output_is_text_when_the_kernel_ends(shelf: Shelf) -> None:
    with started() as kernel:
        (shown,) = kernel.run(CHAT).displays
        assert {VIEW, "text/plain", "text/markdown"} == set(shown["data"])
        client = kernel._client
        content = {"do": "send", "text": "What is the capital of France?", "attachments": [], "id": 1}
        data = {"comm_id": shown["data"][VIEW]["model_id"], "data": {"method": "custom", "content": content}}
        client.shell_channel.send(client.session.msg("comm_msg", data))
        heard = until(client, _is_answered)
        deltas = [message for message in heard if _custom(message).get("is") == "delta"]
        assert "Paris" in "".join(str(_custom(delta)["blocks"]) for delta in deltas)
        ran = kernel.run("print(w.last.text)")
        assert "Paris" in ran.printed
        client.shutdown()
        heard = until(client, lambda message: message["msg_type"] == "update_display_data")
    frozen = heard[-1]["content"]
    assert frozen["transient"] == shown["transient"]
    assert VIEW not in frozen["data"]
    assert "Paris" in frozen["data"]["text/markdown"]
    (kept,) = shelf.list()
    assert shelf.messages(kept.chat_id)[-1].content in ran.printed
    assert frozen["metadata"] == {"nbllm": {"chat": kept.chat_id}}


def _custom(message: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = message["content"].get("data", {}).get("content", {})
    return found


def _is_answered(message: dict[str, Any]) -> bool:
    state: dict[str, Any] = message["content"].get("data", {}).get("state", {})
    return bool(state.get("state", {}).get("phase") == "idle")


def test_notebook_without_a_page_holds_the_transcript_and_no_widget(shelf: Shelf) -> None:
    new = nbformat.v4
    sources = [CHAT, "w.send('What is the capital of France?');"]
    notebook = new.new_notebook(cells=[new.new_code_cell(source) for source in sources])  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=TIMEOUT_S).execute(env=environment())
    (output,) = notebook.cells[0].outputs
    assert set(output.data) == {"text/plain", "text/markdown"}
    assert "Paris" in output.data["text/markdown"]
    assert notebook.cells[1].outputs == []
    assert "widgets" not in notebook.metadata
    assert len(shelf.list()) == 1
