"""A chat in JupyterLab is text wherever its kernel is gone: in the file, in the page, and when it is opened again."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.notebook.front_ends import OUTPUT
from tests.notebook.widget.in_front_end import VIEW, Front, Served, opened

pytestmark = [
    pytest.mark.model,
    pytest.mark.browser,
    pytest.mark.usefixtures("smollm2_path"),
    pytest.mark.timeout(300),
]

OPTIONS = "system='You are a helpful assistant.', temperature=0, max_tokens=24"
CELLS = {
    "chat": f"import nbllm\nw = nbllm.ChatWidget({OPTIONS})\nw",
    "freeze": "w.freeze()",
    "again": "w",
    "close": "w.close()",
    "other": f"nbllm.ChatWidget({OPTIONS})",
}


def has_no_dead_widget(page: Page) -> None:
    expect(page.locator(OUTPUT).get_by_text(re.compile("model not found|displaying widget"))).to_have_count(0)


def is_text(front: Front, cell: str, *words: str) -> None:
    output = front.cell(cell).locator(OUTPUT)
    expect(output.locator(".nbllm-chat")).to_have_count(0)
    for text in words:
        expect(output).to_contain_text(text)
    has_no_dead_widget(front.page)


def test_saved_chat_outlives_its_kernel_and_goes_on_tomorrow(browser: BrowserContext, served: Served) -> None:
    path = served.write("reopen.ipynb", CELLS)
    with opened(browser, served, path) as lab:
        chat = lab.chat("chat")
        chat.ask("What is the capital of France?")
        (output,) = lab.saved().cells[0].outputs
        assert "Paris" in output.data["text/markdown"]
        assert VIEW not in path.read_text()
        expect(chat.answers).to_contain_text("Paris")  # the page goes on with its widget
        command = re.findall(r"%llm chat \S+", output.data["text/plain"])[-1]
        served.end_kernels()
        is_text(lab, "chat", "Paris", command)  # what a kernel does last
    tomorrow = served.write("tomorrow.ipynb", {"go on": f"%load_ext nbllm\n{command}", **CELLS})
    with opened(browser, served, path) as lab:
        is_text(lab, "chat", "What is the capital of France?", "Paris", command)
    with opened(browser, served, tomorrow) as lab:
        chat = lab.chat("go on")
        expect(chat.messages).to_have_count(2)
        expect(chat.answers).to_contain_text("Paris")
        expect(chat.ask("And of Italy?")).to_contain_text("Rome")
    served.end_kernels()


def test_frozen_chat_is_text_and_wakes_when_shown_and_a_closed_one_stays_text(
    browser: BrowserContext, served: Served
) -> None:
    with opened(browser, served, served.write("freeze.ipynb", CELLS)) as lab:
        lab.chat("chat").ask("What is the capital of France?")
        lab.run("freeze")
        is_text(lab, "chat", "Paris", "%llm chat")
        again = lab.chat("again")
        expect(again.answers).to_contain_text("Paris")
        again.button("freeze").click()
        is_text(lab, "again", "Paris", "%llm chat")
        other = lab.chat("other")
        expect(other.answers).to_contain_text("Paris")  # the notebook's conversation
        lab.chat("again")
        lab.run("close")
        is_text(lab, "again", "Paris")
        expect(other.text).to_be_enabled()
    served.end_kernels()
