"""Bar: whatever a model, a person, a file or a name says to the widget is inert, live and as the text it becomes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.notebook import hostile
from tests.notebook.front_ends import OUTPUT, Attacker, Watched
from tests.notebook.test_attacks import exported_page
from tests.notebook.widget import attacking
from tests.notebook.widget.in_front_end import NOTEBOOK_7, Chat, Front, Served, opened

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

PARTS = range(attacking.PARTS)
CELLS = {
    "begin": "from tests.notebook.widget import attacking",
    **{f"chat {part}": f"w{part} = attacking.widget(get_ipython(), {part})\nw{part}" for part in PARTS},
    **{f"attack {part}": f"attacking.attack(w{part}, {part})" for part in PARTS},
    **{f"again {part}": f"w{part}" for part in PARTS},
}
FORGERIES = (
    "<img src=x onerror=window.attacked=1>",
    "<script>1</script>",
    "<svg></svg>",
    "<a href='javascript:alert(1)'>x</a>",
    "<p onclick=a()>x</p>",
    "<p style='position: fixed'>x</p>",
    "<p class='jp-Dialog'>x</p>",
    "<form action='https://x'><button data-do=stop>x</button></form>",
    "<p id=login>x</p>",
)


@pytest.fixture(scope="module")
def lab(served: Served, browser: BrowserContext) -> Iterator[Front]:
    with opened(browser, served, served.write("attacked.ipynb", CELLS)) as lab:
        lab.run("begin")
        yield lab
    served.end_kernels()


@pytest.fixture(scope="module")
def attacked(lab: Front) -> list[Chat]:
    """After all attacks, which their views watched as they came."""
    chats = [lab.chat(f"chat {part}") for part in PARTS]
    for part, chat in enumerate(chats):
        lab.run(f"attack {part}")
        chat.is_idle()
        expect(chat.answers).to_have_count(len(attacking.texts(part)))
    return chats


def check(watched: Watched, attacker: Attacker) -> None:
    assert watched.attacks() == []
    assert attacker.connections == []


def test_answers_questions_and_names_are_text(lab: Front, attacked: list[Chat], attacker: Attacker) -> None:
    again = lab.chat("again 0")
    expect(again.answers).to_have_count(len(attacking.texts(0)))
    check(lab.watched, attacker)
    for chat in (*attacked, again):
        expect(chat.messages.filter(has_text=hostile.IMG).first).to_be_attached()
        expect(chat.root.locator(".nbllm-model")).to_contain_text(hostile.IMG)
        expect(chat.root.locator(".nbllm-conversation")).to_contain_text(attacking.CONVERSATION)
        expect(chat.root.locator("[name=system]")).to_have_attribute("placeholder", hostile.IMG)


def test_what_is_typed_dropped_and_refused_is_text(lab: Front, attacked: list[Chat], attacker: Attacker) -> None:
    chat = attacked[0]
    names = [f"{hostile.IMG}.txt", "a[x](javascript:alert(1)) $x$.md"]
    files: Any = [{"name": name, "mimeType": "text/plain", "buffer": hostile.IMG.encode()} for name in names]
    chat.root.locator("input[type=file]").set_input_files(
        [*files, {"name": f"{hostile.IMG}.png", "mimeType": "image/png", "buffer": b"x"}]
    )
    expect(chat.button("error")).to_contain_text(f"{hostile.IMG}.png")
    answer = chat.ask(hostile.CORPUS["in_table_cells"])
    asked = chat.messages.nth(-2)
    for name in names:
        expect(asked.locator(".nbllm-chips")).to_contain_text(name)
    expect(answer).to_contain_text("onerror")
    chat.button("rename").click()
    renamed = f"renamed{attacking.CONVERSATION}"
    chat.root.get_by_label("New name of the conversation").fill(renamed)
    lab.page.keyboard.press("Enter")
    expect(chat.root.locator(".nbllm-conversation")).to_contain_text(renamed)
    chat.button("settings-button").click()
    chat.root.locator("[name=system]").fill(f"</textarea>{hostile.IMG}")
    chat.root.locator(".nbllm-apply").click()
    chat.send(f"fail {hostile.IMG}")
    expect(chat.button("error")).to_contain_text(f"failed at {hostile.IMG}")
    check(lab.watched, attacker)


def test_what_would_not_be_text_is_noticed(lab: Front, attacked: list[Chat]) -> None:
    """The other tests can fail."""
    places = [attacked[0].button(name).last for name in ("body", "tail", "foot", "error", "status")]
    for place in places:
        for forgery in FORGERIES:
            place.evaluate("(place, html) => place.insertAdjacentHTML('beforeend', html)", forgery)
            found = place.evaluate("(place) => window.foreign(place.lastElementChild)")
            place.evaluate("(place) => place.lastElementChild.remove()")
            assert found, forgery
    lab.page.evaluate("() => { window.seen.clear(); delete window.attacked; }")


def test_text_in_the_file_is_inert_and_so_is_the_widget_in_notebook_7(
    lab: Front, attacked: list[Chat], served: Served, browser: BrowserContext, attacker: Attacker, tmp_path: Path
) -> None:
    notebook, counts = lab.saved(), [chat.answers.count() for chat in attacked]
    assert "widget-view" not in lab.path.read_text()
    with opened(browser, served, lab.path, NOTEBOOK_7) as seven:
        for part in PARTS:
            expect(seven.cell(f"chat {part}").locator(OUTPUT)).to_contain_text(hostile.IMG)
        check(seven.watched, attacker)
        for part, count in enumerate(counts):
            expect(seven.chat(f"again {part}").answers).to_have_count(count)
        check(seven.watched, attacker)
    with exported_page(notebook, tmp_path / "chat.html", browser) as exported:
        expect(exported.page.locator(OUTPUT).first).to_contain_text(hostile.IMG)
        check(exported, attacker)
