"""The widget as a person uses it: in JupyterLab and Notebook 7, in Chromium, answered by the bundled model.

One notebook, one kernel and one page serve all tests; each has a cell and a conversation of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import BrowserContext, Locator, expect

from tests.notebook import front_ends
from tests.notebook.front_ends import OUTPUT
from tests.notebook.widget.in_front_end import NOTEBOOK_7, Chat, Front, Served, opened

pytestmark = [
    pytest.mark.model,
    pytest.mark.browser,
    pytest.mark.usefixtures("smollm2_path"),
    pytest.mark.timeout(300),
]

FRANCE = "What is the capital of France?"
LONG = "Write a long story about a river, a mill and a fox."
BEGIN = """\
import time
import nbllm
def chat(name, **options):
    options = dict(system='You are a helpful assistant.', temperature=0, max_tokens=24) | options
    return nbllm.ChatWidget(conversation=name, **options)
# The bundled model's ends of a turn are banned: an answer must not be over before something is done to it.
endless = dict(max_tokens=7000, logit_bias={"0": -100, "2": -100, "4": -100})
"""
# A kernel hears a widget on the thread that spoke for it last: here that is the one that sleeps then.
SLEEP = "w.send_state('limits')\nprint('begun', flush=True)\ntime.sleep(60)"
RICH = r"""
from nbllm.testing import ScriptedEngine
engine = ScriptedEngine()
w = nbllm.ChatWidget(nbllm.Model(engine), 'rich')
engine.enqueue('''\
## Heading

A [link](https://example.org), `code`, **strong** and $x^2$.

- [x] one
- two

> quoted

```python
@cached
def f(x: int) -> str:  # a comment
    return f"{x + 1}" if x else None
```

| a | b |
|---|--:|
| 1 | 2 |
''')
w.send('A question')
w
"""
CELLS = {
    "begin": BEGIN,
    "ask": "chat('ask')",
    "decode": "chat('decode', **endless)",
    "prefill": "chat('prefill', **endless)",
    "busy": "w = chat('busy', **endless)\nw",
    "busy sleep": SLEEP,
    "later": "w = chat('later')\nw",
    "later sleep": SLEEP,
    "branches": "chat('branches', temperature=1, max_tokens=12)",
    "two": "two = chat('two', **endless)\ntwo",
    "two more": "two",
    "typed": "typed = chat('typed')\ntyped",
    "typed again": "typed",
    "late": "late = chat('late', **endless)\nlate",
    "late again": "late",
    "theme": "chat('theme')",
    "keys": "chat('keys', **endless)",
    "shortcuts": "chat('shortcuts')",
    "audit": RICH,
    "notebook 7": "chat('seven', max_tokens=2000)",
}


@pytest.fixture(scope="module")
def lab(served: Served, browser: BrowserContext) -> Iterator[Front]:
    with opened(browser, served, served.write("widget.ipynb", CELLS)) as lab:
        lab.run("begin")
        yield lab


def test_answer_streams_and_ends_with_its_figures(lab: Front) -> None:
    chat = lab.chat("ask")
    chat.root.evaluate(
        """(root) => {
          window.lengths = new Set();
          const note = () => { const live = root.querySelector(".nbllm-live"); if (live) lengths.add(live.innerText); };
          new MutationObserver(note).observe(root, { childList: true, characterData: true, subtree: true });
        }"""
    )
    answer = chat.ask("What are the planets?")
    expect(answer.locator(".nbllm-body")).to_contain_text("planets")
    expect(answer.locator(".nbllm-foot")).to_contain_text("tokens in")
    assert lab.page.evaluate("window.lengths.size") > 3
    expect(chat.text).to_be_focused()
    expect(chat.text).to_have_value("")
    expect(chat.root.locator(".nbllm-context")).to_have_attribute("aria-valuenow", re.compile(r"[1-9]\d*"))


def test_stop_while_the_model_writes_keeps_what_it_wrote(lab: Front) -> None:
    chat = lab.chat("decode")
    chat.send(LONG)
    chat.is_writing()
    chat.button("stop").click()
    chat.is_idle()
    expect(chat.button("status")).to_have_text("Stopped")
    expect(chat.answers.locator(".nbllm-body")).to_have_text(re.compile(r"\w"))
    expect(chat.button("error")).to_be_empty()


def test_stop_while_the_model_reads_gives_the_question_back(lab: Front) -> None:
    chat = lab.chat("prefill")
    question = "A very long question. " * 1400
    chat.send(question)
    expect(chat.button("status")).to_contain_text("Reading the question")
    chat.button("stop").click()
    chat.is_idle()
    expect(chat.text).to_have_value(question)
    expect(chat.button("status")).to_have_text("Stopped")
    expect(chat.messages).to_have_count(0)


@contextmanager
def _asleep(lab: Front, name: str) -> Iterator[Locator]:
    """While a cell runs, which does nothing."""
    cell = lab.start(name)
    try:
        expect(cell.locator(OUTPUT)).to_have_text("begun\n")
        yield cell
    finally:
        if cell.locator(".jp-InputPrompt").inner_text() == "[*]:":
            lab.page.get_by_role("menuitem", name="Kernel", exact=True).click()
            lab.page.get_by_role("menuitem", name="Interrupt Kernel").click()
        expect(cell.locator(".jp-InputPrompt")).not_to_have_text("[*]:")


def test_stop_reaches_the_model_while_a_cell_runs(lab: Front) -> None:
    chat = lab.chat("busy")
    chat.send(LONG)
    chat.is_writing()
    with _asleep(lab, "busy sleep") as cell:
        chat.is_writing()
        with lab.page.expect_response("**/nbllm/stop") as response:
            chat.button("stop").click()
        assert response.value.status == 204
        chat.is_idle()
        expect(chat.answers).to_have_count(1)
        expect(cell.locator(".jp-InputPrompt")).to_have_text("[*]:")


def test_message_sent_while_a_cell_runs_waits_and_the_cell_can_be_interrupted(lab: Front) -> None:
    chat = lab.chat("later")
    with _asleep(lab, "later sleep") as cell:
        chat.send(FRANCE)
        expect(chat.button("status")).to_have_text("Will be sent when the running cell ends")
        expect(chat.messages).to_have_count(1)
        chat.root.get_by_role("button", name="Interrupt the running cell").click()
        expect(cell.locator(OUTPUT).last).to_contain_text("KeyboardInterrupt")
    expect(chat.answers).to_contain_text("Paris")
    expect(chat.messages).to_have_count(2)
    expect(chat.button("interrupt")).to_be_hidden()


def test_question_is_changed_and_answered_again_and_all_versions_stay(lab: Front) -> None:
    chat = lab.chat("branches")
    chat.ask("Say one.")
    chat.messages.first.hover()
    chat.messages.first.locator(".nbllm-edit").click()
    editor = chat.messages.first.locator("textarea")
    expect(editor).to_have_value("Say one.")
    editor.fill("Say two.")
    editor.press("Enter")
    expect(chat.messages.first.locator(".nbllm-body")).to_have_text("Say two.")
    _is_version(chat, 2, 2)
    chat.answers.first.locator(".nbllm-regenerate").click()
    _is_version(chat, 3, 3)
    expect(chat.messages).to_have_count(2)
    for version, question in ((2, "Say two."), (1, "Say one.")):
        chat.messages.first.locator(".nbllm-branch-prev").click()
        _is_version(chat, version, 3)
        expect(chat.messages.first.locator(".nbllm-body")).to_have_text(question)
    expect(chat.messages.first.locator(".nbllm-branch-prev")).to_be_disabled()


def _is_version(chat: Chat, number: int, count: int) -> None:
    expect(chat.messages.first.locator(".nbllm-branch")).to_have_text(f"{number}/{count}")
    chat.is_idle()


def test_two_views_show_the_same_and_both_can_stop(lab: Front) -> None:
    one = lab.chat("two")
    one.send(LONG)
    one.is_writing()
    other = lab.chat("two more")
    other.is_writing()
    other.button("stop").click()
    for chat in (one, other):
        chat.is_idle()
        expect(chat.answers).to_have_count(1)
    assert one.messages.all_inner_texts() == other.messages.all_inner_texts()
    expect(other.answers.locator(".nbllm-body")).to_have_text(re.compile(r"\w"))


def test_view_keeps_what_is_typed_in_it_when_another_is_shown(lab: Front) -> None:
    chat = lab.chat("typed")
    chat.text.fill("Not sent yet")
    lab.chat("typed again")
    expect(chat.text).to_have_value("Not sent yet")


def test_page_that_is_loaded_again_shows_the_transcript_and_the_live_answer(lab: Front, served: Served) -> None:
    """What the file holds is text; the cell that shows the widget has it again, as far as it has come."""
    chat = lab.chat("late")
    chat.send(LONG)
    chat.is_writing()
    lab.saved()
    lab.watched.is_kernel_there = False
    front_ends.open_notebook(lab.watched, served.url + "/lab/tree", lab.path.name)
    expect(lab.cell("late").locator(OUTPUT)).to_contain_text("%llm chat")
    expect(lab.page.locator(OUTPUT).get_by_text("model not found")).to_have_count(0)
    again = lab.chat("late again")
    again.is_writing()
    expect(again.messages.first).to_contain_text(LONG)
    again.button("stop").click()
    again.is_idle()
    expect(again.answers).to_have_count(1)


@pytest.fixture
def wear(lab: Front) -> Iterator[Callable[[str], None]]:
    """Choose a theme in JupyterLab's menu."""

    def wear(name: str) -> None:
        lab.page.get_by_role("menuitem", name="Settings", exact=True).click()
        for item in ("Theme", f"JupyterLab {name}"):
            lab.page.locator(".lm-Menu-item").get_by_text(item, exact=True).click()
        expect(lab.page.locator("body")).to_have_attribute("data-jp-theme-name", f"JupyterLab {name}")

    yield wear
    wear("Light")


def test_theme_of_the_front_end_is_the_widgets(lab: Front, wear: Callable[[str], None]) -> None:
    chat = lab.chat("theme")
    colours = {}
    for name, theme in (("Light", "light"), ("Dark", "dark"), ("Light", "light")):
        wear(name)
        expect(chat.root).to_have_attribute("data-theme", theme)
        colours[theme] = chat.text.evaluate("(text) => getComputedStyle(text).color")
    assert colours["light"] != colours["dark"]


def test_keyboard_alone_does_everything(lab: Front) -> None:
    chat, press = lab.chat("keys"), lab.page.keyboard.press
    chat.button("feed").focus()
    _tab_to(chat, ".nbllm-settings-button", "Shift+Tab")
    press("Enter")
    expect(chat.root.get_by_label("System prompt")).to_be_focused()
    _tab_to(chat, "[name=max_tokens]")
    lab.page.keyboard.type("900")
    press("Enter")
    expect(chat.button("status")).to_have_text("Settings applied")
    press("Escape")
    expect(chat.button("settings-button")).to_be_focused()
    expect(chat.button("settings")).to_be_hidden()
    _tab_to(chat, ".nbllm-composer textarea")
    lab.page.keyboard.type(LONG)
    press("Enter")
    chat.is_writing()
    press("Escape")
    chat.is_idle()
    expect(chat.answers).to_have_count(1)
    press("ArrowUp")
    expect(chat.text).to_have_value(LONG)
    _tab_to(chat, ".nbllm-regenerate", "Shift+Tab")
    for _ in range(12):  # and there is a way out
        press("Tab")
    assert not chat.root.evaluate("(root) => root.contains(document.activeElement)")


def _tab_to(chat: Chat, selector: str, key: str = "Tab") -> None:
    for _ in range(20):
        if chat.root.locator(selector).last.evaluate("(node) => node === document.activeElement"):
            return
        chat.page.keyboard.press(key)
    raise AssertionError(f"{key} does not lead to {selector}")


def test_shortcuts_of_the_notebook_do_not_fire_in_the_widget(lab: Front) -> None:
    chat = lab.chat("shortcuts")
    before = lab.watched.cells.count()
    for place in (chat.text, chat.root.locator(".nbllm-new"), chat.root.locator(".nbllm-feed")):
        place.focus()
        lab.page.keyboard.type("dd a b x v m y 00 ii L O")
        lab.page.keyboard.press("Control+Shift+-")
        lab.page.keyboard.press("Shift+M")
    chat.text.focus()
    lab.page.keyboard.press("Shift+Enter")
    expect(chat.text).to_have_value("dd a b x v m y 00 ii L OM\n")
    expect(lab.page.locator("dialog, .jp-Dialog")).to_have_count(0)
    assert lab.watched.cells.count() == before
    expect(chat.messages).to_have_count(0)


_AUDIT = "() => axe.run('.nbllm-audited', { resultTypes: ['violations'] })"


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_audit_finds_nothing_serious(lab: Front, wear: Callable[[str], None], theme: str) -> None:
    wear(theme)
    chat = lab.chat("audit")
    expect(chat.answers.locator("mjx-container").first).to_be_visible()
    chat.button("settings-button").click()
    chat.root.evaluate("(root) => root.classList.add('nbllm-audited')")
    lab.page.mouse.move(0, 0)
    if not lab.page.evaluate("typeof axe === 'object'"):
        lab.page.evaluate(Axe().axe_script)
    violations: list[dict[str, Any]] = lab.page.evaluate(_AUDIT)["violations"]
    found = [
        (one["id"], [(node["target"], node["failureSummary"]) for node in one["nodes"]][:4])
        for one in violations
        if one["impact"] in ("serious", "critical")
    ]
    assert found == []
    expect(chat.root).to_have_attribute("data-theme", theme.lower())


def test_notebook_7_has_the_same_widget(lab: Front, browser: BrowserContext, served: Served) -> None:
    with opened(browser, served, lab.path, NOTEBOOK_7) as notebook:
        chat = notebook.chat("notebook 7")
        expect(chat.ask(FRANCE)).to_contain_text("Paris")
        chat.send(LONG)
        chat.is_writing()
        chat.button("stop").click()
        chat.is_idle()
        expect(chat.messages).to_have_count(4)
        notebook.page.keyboard.type("dd a b")
        expect(chat.text).to_have_value("dd a b")
