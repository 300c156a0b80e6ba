"""axe-core's audit of the chat in a bare page, by day and by night; what JupyterLab adds is audited in a real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Locator, expect

from tests.notebook.widget.page import ChatPage, answer, chat_page, code, question

pytestmark = pytest.mark.browser

# The colours that JupyterLab's own two themes set, where they differ from a fall-back of the style sheet's.
_DAY = {
    **{"layout-color1": "white", "ui-font-color1": "rgba(0,0,0,.87)", "brand-color1": "#1976d2"},
    **{"content-link-color": "#0d47a1", "error-color1": "#d32f2f", "inverse-border-color": "#757575"},
    **{f"mirror-editor-{name}-color": colour for name, colour in (
        ("keyword", "green"), ("def", "#00f"), ("number", "#080"), ("string", "#ba2121"), ("comment", "#408080"),
        ("operator", "#7800c2"), ("meta", "#a2f"),
    )},
}  # fmt: skip
_NIGHT = {
    **{"layout-color1": "#212121", "ui-font-color1": "rgba(255,255,255,.87)", "brand-color1": "#2196f3"},
    **{"content-link-color": "#64b5f6", "error-color1": "#f44336", "inverse-border-color": "#757575"},
    **{f"mirror-editor-{name}-color": colour for name, colour in (
        ("keyword", "#4caf50"), ("def", "#1e88e5"), ("number", "#66bb6a"), ("string", "#ff7070"),
        ("comment", "#408080"), ("operator", "#d48fff"), ("meta", "#a2f"),
    )},
}  # fmt: skip
THEMES = {
    "day": (None, {}, "light"),
    "night": (None, {}, "dark"),
    "jupyterlab-day": ("true", _DAY, "light"),
    "jupyterlab-night": ("false", _NIGHT, "dark"),
}

_CLASSES = (
    *("k", "kc", "kn", "nb", "nf", "nc", "nd", "mi", "s1", "se", "c1", "cm", "o", "ow", "p", "n", "err", "gd", "gi"),
)
_CODE = code(*(["span", {"class": name}, f"{name}_word "] for name in _CLASSES), "x" * 300)
_TABLE: Any = ["table", {}]
_TABLE.append(["thead", {}, ["tr", {}, *(["th", {"align": "right"}, f"column {n}"] for n in range(12))]])
_TABLE.append(["tbody", {}, ["tr", {}, *(["td", {}, f"a value of column {n}"] for n in range(12))]])
_REST: list[Any] = [
    *(
        ["h2", {}, "A heading"],
        ["p", {}, "See ", ["a", {"href": "https://example.org"}, "this page"], ", ", ["s", {}, "or not"]],
    ),
    *(["ul", {}, ["li", {}, "one ", ["code", {}, "inline"]]], ["blockquote", {}, ["p", {}, "quoted"]], ["hr", {}]),
    ["ul", {}, *(["li", {}, ["input", {"checked": done}], " a task"] for done in (True, False))],
]
FULL = [
    question(1, "What is this?", attachments=[{"name": "notes.txt", "size": 12}]),
    answer(1, *_REST, _CODE, _TABLE, text="text", reasoning="Let me think."),
    question(2, "And then?", branches={"index": 1, "turns": [2, 3]}),
    answer(2, "The end.", text="The end.", ending="length"),
]


@pytest.fixture(scope="module")
def shared(chromium_path: str) -> Iterator[ChatPage]:
    with chat_page(chromium_path) as chat:
        chat.page.evaluate(Axe().axe_script)
        yield chat


@pytest.fixture
def chat(shared: ChatPage, theme: str) -> ChatPage:
    """The page in one of the themes, until the next test."""
    mark, variables, scheme = THEMES[theme]
    shared.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    shared.page.evaluate(
        """([mark, variables]) => {
          document.documentElement.removeAttribute("style");
          for (const [name, value] of Object.entries(variables))
            document.documentElement.style.setProperty(`--jp-${name}`, value);
          if (mark === null) document.body.removeAttribute("data-jp-theme-light");
          else document.body.setAttribute("data-jp-theme-light", mark);
        }""",
        [mark, variables],
    )
    return shared


def _empty(chat: ChatPage) -> None:
    chat.begin()


def _full(chat: ChatPage) -> None:
    view = chat.begin(transcript=FULL)
    view.locator("details").evaluate_all("(all) => all.forEach((one) => { one.open = true; })")
    chat.page.mouse.move(0, 0)


def _editing(chat: ChatPage) -> None:
    view = chat.begin(transcript=FULL)
    view.locator(".nbllm-message").first.hover()
    view.locator(".nbllm-edit").first.click()


def _answering(chat: ChatPage) -> None:
    chat.begin(transcript=FULL, state={"phase": "answering"})
    asked = question(3, "More?")
    shown: dict[str, Any] = {"id": "L", "question": asked, "after": None, "blocks": [], "tail": "Some text"}
    chat.deliver({"is": "live", "seq": 1, "live": shown | {"reasoning": "Hm."}})


def _settings(chat: ChatPage) -> None:
    view = chat.begin(transcript=FULL)
    view.locator(".nbllm-settings-button").click()


def _refused(chat: ChatPage) -> None:
    view = chat.begin(transcript=FULL)
    chat.refuse("there is a conversation 'side' already: give another name")
    view.locator(".nbllm-rename").click()
    view.locator("input:focus").fill("side")
    chat.page.keyboard.press("Enter")
    expect(view.locator(".nbllm-reason")).to_be_visible()


def _error(chat: ChatPage) -> None:
    view = chat.begin(transcript=FULL, state={"error": "no model is there; type: %llm get smollm2", "draft": "lost"})
    file: Any = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"x"}
    view.locator("input[type=file]").set_input_files(file)
    expect(view.locator(".nbllm-composer .nbllm-chip")).to_be_visible()


def _busy(chat: ChatPage) -> None:
    view: Locator = chat.begin()
    chat.deafen()
    view.locator("textarea").last.fill("Later")
    view.locator("textarea").last.press("Enter")
    expect(view.locator(".nbllm-interrupt")).to_be_visible()


STATES = (_empty, _full, _editing, _answering, _settings, _refused, _error, _busy)
_AUDIT = "() => axe.run('main', { resultTypes: ['violations'] })"


@pytest.mark.parametrize(
    ("theme", "state"),
    [
        pytest.param(theme, state, id=f"{theme}{state.__name__}")
        for theme in THEMES
        for state in (STATES if theme in ("day", "night") else (_full, _settings, _error))
    ],
)
def test_audit_finds_nothing_serious(chat: ChatPage, state: Callable[[ChatPage], None]) -> None:
    state(chat)
    assert serious(chat) == []


@pytest.mark.parametrize("theme", ["day"])
def test_audit_sees_what_is_too_pale(chat: ChatPage) -> None:
    _full(chat)
    style = chat.page.add_style_tag(content=".nbllm-chat[data-theme] { --nbllm-muted: #ccc; }")
    found = serious(chat)
    style.evaluate("(style) => style.remove()")
    assert [one for one in found if one.startswith("color-contrast")]


def serious(chat: ChatPage) -> list[str]:
    """What axe calls serious or critical, and where."""
    return [
        f"{one['id']}: {one['help']}: {[(node['target'], node['failureSummary']) for node in one['nodes']][:4]}"
        for one in chat.page.evaluate(_AUDIT)["violations"]
        if one["impact"] in ("serious", "critical")
    ]
