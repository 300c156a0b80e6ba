"""What chat.js does on its own: a bare page, a fake model, and a test in the place of Python."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.notebook.widget.page import HEADER, ChatPage, answer, chat_page, code, exchange, question

pytestmark = pytest.mark.browser

LIVE_QUESTION = question(2, "And then?")


@pytest.fixture(scope="module")
def shared(chromium_path: str) -> Iterator[ChatPage]:
    with chat_page(chromium_path) as chat:
        yield chat


@pytest.fixture
def chat(shared: ChatPage) -> Iterator[ChatPage]:
    yield shared
    assert not shared.problems


def live(seq: int, tail: str = "", *, id: str = "L1", blocks: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    plain = {"id": id, "question": LIVE_QUESTION, "after": None, "blocks": blocks or [], "tail": tail, "reasoning": ""}
    return {"is": "live", "seq": seq, "live": plain | more}


def gone(seq: int) -> dict[str, Any]:
    return {"is": "live", "seq": seq, "live": None}


def delta(seq: int, text: str = "", *, blocks: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"is": "delta", "seq": seq, "reasoning": "", "blocks": blocks or [], "tail": None, "text": text} | more


def paragraph(text: str) -> list[Any]:
    return ["p", {}, text]


def messages(view: Locator) -> Locator:
    return view.locator(".nbllm-message:visible")


def tail(view: Locator) -> Locator:
    """What of the live answer is open yet."""
    return view.locator(".nbllm-live .nbllm-tail")


def box(view: Locator) -> Locator:
    return view.locator(".nbllm-composer textarea")


def type_and_send(view: Locator, text: str) -> None:
    box(view).fill(text)
    box(view).press("Enter")


# The transcript


def test_transcript_is_shown_in_its_order(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(2))
    expect(messages(view)).to_have_count(4)
    bodies = view.locator(".nbllm-message .nbllm-body").all_inner_texts()
    assert bodies == ["question 1", "answer 1", "question 2", "answer 2"]
    expect(messages(view).nth(3)).to_have_attribute("data-role", "assistant")
    expect(messages(view).nth(3)).to_have_attribute("data-turn", "2")
    expect(messages(view).nth(3).locator(".nbllm-foot")).to_contain_text("21 tokens out")


def test_unchanged_messages_keep_their_nodes(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(2))
    view.evaluate("(view) => view.querySelectorAll('.nbllm-message').forEach((one, at) => { one.kept = at; })")
    changed = answer(2, "answer 2, said better")
    chat.update(transcript=[*exchange(1), question(2, "question 2"), changed, question(3, "question 3")])
    kept = "(view) => [...view.querySelectorAll('.nbllm-message')].map((one) => one.kept ?? null)"
    assert view.evaluate(kept) == [0, 1, 2, 3, None]
    expect(messages(view).nth(3)).to_contain_text("said better")


def test_messages_that_left_the_transcript_leave_the_page(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(3))
    chat.update(transcript=exchange(1))
    expect(messages(view)).to_have_count(2)
    chat.update(transcript=[])
    expect(view.locator(".nbllm-message")).to_have_count(0)


def test_text_of_a_question_is_text(chat: ChatPage) -> None:
    text = "**no** <img src=x onerror=window.attacked=1>\n  second line"
    view = chat.begin(transcript=[question(1, text)])
    assert view.locator(".nbllm-body").inner_text() == text
    assert view.locator(".nbllm-message img, .nbllm-message strong").count() == 0


def test_reasoning_is_folded(chat: ChatPage) -> None:
    view = chat.begin(transcript=[answer(1, "Paris", reasoning="Let me think.")])
    folded = view.locator("details.nbllm-reasoning")
    expect(folded).not_to_have_attribute("open", "")
    folded.locator("summary").click()
    expect(folded).to_contain_text("Let me think.")
    expect(folded.get_by_text("Let me think.")).to_be_visible()


def test_module_never_writes_a_trait(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(1))
    type_and_send(view, "Hello")
    chat.deliver(live(1, "Hi"), delta(2, " there"))
    assert chat.page.evaluate("window.model.written") == []


# The live answer


def test_live_answer_grows_with_its_deltas(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(1))
    chat.deliver(live(1), delta(2, "One "), delta(3, "two"))
    expect(messages(view)).to_have_count(4)
    shown = messages(view).nth(3)
    expect(messages(view).nth(2)).to_contain_text("And then?")
    expect(tail(view)).to_have_text("One two")
    chat.deliver(delta(4, "three", blocks=[paragraph("One two.")], tail=""))
    expect(shown.locator(".nbllm-body p")).to_have_text("One two.")
    expect(tail(view)).to_have_text("three")
    first = shown.locator(".nbllm-body p").first.element_handle()
    chat.deliver(delta(5, blocks=[paragraph("three four")], tail="fi"), delta(6, "ve"))
    expect(shown.locator(".nbllm-body p")).to_have_text(["One two.", "three four"])
    expect(tail(view)).to_have_text("five")
    assert first.evaluate("(node) => node.isConnected")


def test_live_reasoning_is_appended(chat: ChatPage) -> None:
    view = chat.begin()
    chat.deliver(live(1, reasoning="Let me"), delta(2, reasoning=" think"), delta(3, "So", reasoning="."))
    expect(view.locator(".nbllm-live .nbllm-reasoning")).to_contain_text("Let me think.")
    expect(tail(view)).to_have_text("So")


def test_many_deltas_lose_nothing(chat: ChatPage) -> None:
    view = chat.begin()
    chat.deliver(live(1), *(delta(number, f"{number} ") for number in range(2, 802)))
    expected = "".join(f"{number} " for number in range(2, 802))
    expect(tail(view)).to_have_text(expected.strip())
    assert tail(view).text_content() == expected
    assert len(chat.sent("hello")) == 1


def test_gap_in_the_deltas_asks_for_the_whole_state(chat: ChatPage) -> None:
    view = chat.begin()
    chat.deliver(live(1, "One "))
    before = len(chat.sent("hello"))
    chat.deliver(delta(2, "two "), delta(4, "four "), delta(5, "five "))
    assert len(chat.sent("hello")) == before + 1
    expect(tail(view)).to_have_text("One two")
    chat.deliver(live(6, "One two three four five "), delta(7, "six"))
    expect(tail(view)).to_have_text("One two three four five six")
    assert len(chat.sent("hello")) == before + 1


def test_late_view_shows_the_same(chat: ChatPage) -> None:
    first = chat.begin(transcript=exchange(1))
    chat.deliver(live(1), delta(2, "One "))
    second = chat.show()
    expect(tail(second)).to_have_text("One")
    chat.deliver(delta(3, "two"))
    for view in (first, second):
        expect(tail(view)).to_have_text("One two")
        expect(messages(view)).to_have_count(4)


def test_deltas_before_the_state_wait_for_it(chat: ChatPage) -> None:
    view = chat.begin()
    chat.deliver(delta(7, "lost "), delta(8, "too "), live(9, "whole "), delta(10, "tail"))
    expect(tail(view)).to_have_text("whole tail")


def test_live_part_goes_when_the_transcript_has_it(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(1))
    chat.deliver(live(1, "One two"))
    chat.update(transcript=[*exchange(1), LIVE_QUESTION, answer(2, "One two", live="L1")])
    expect(messages(view)).to_have_count(4)
    expect(view.locator(".nbllm-tail:visible", has_text="One")).to_have_count(0)
    chat.deliver(delta(2, " three"), gone(3))
    expect(messages(view)).to_have_count(4)
    expect(messages(view).nth(3)).not_to_contain_text("three")


def test_live_part_goes_when_it_is_over(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(1))
    chat.deliver(live(1, "One"), gone(2))
    expect(messages(view)).to_have_count(2)
    chat.deliver(live(3, "again", id="L2"))
    expect(messages(view)).to_have_count(4)


def test_messages_behind_a_regenerated_answer_are_hidden(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(3))
    chat.deliver(live(1, "anew", after=1))
    assert [one.split("\n")[0] for one in messages(view).locator(".nbllm-body").all_inner_texts()[:2]] == [
        "question 1",
        "answer 1",
    ]
    expect(view.get_by_text("answer 2")).to_be_hidden()
    expect(view.get_by_text("question 3")).to_be_hidden()
    expect(messages(view).last).to_contain_text("anew")
    chat.deliver(gone(2))
    expect(view.get_by_text("answer 3")).to_be_visible()


_HOLD_TIMERS = """() => {
  const timers = new Map(), clear = window.clearTimeout;
  let id = 1e9;  // above those of the browser
  window.held = { timers, clear, set: window.setTimeout };
  window.setTimeout = (act) => { timers.set(++id, act); return id; };
  window.clearTimeout = (id) => { if (!timers.delete(id)) clear(id); };
}"""
_END_TIMERS = "() => { for (const act of [...window.held.timers.values()]) act(); window.held.timers.clear(); }"
_FREE_TIMERS = "() => { window.setTimeout = window.held.set; window.clearTimeout = window.held.clear; }"


@pytest.fixture
def held_timers(chat: ChatPage) -> Iterator[None]:
    """None of the module's timers ends before `_END_TIMERS`."""
    chat.page.evaluate(_HOLD_TIMERS)
    yield
    chat.page.evaluate(_FREE_TIMERS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({}, "Answer complete", id="whole"),
        pytest.param({"draft": "Why?"}, "Stopped", id="stopped before a word"),
    ],
)
@pytest.mark.usefixtures("held_timers")
def test_end_of_an_answer_is_said_once(chat: ChatPage, change: dict[str, str], said: str) -> None:
    view = chat.begin(transcript=exchange(1), state={"phase": "answering"})
    chat.update(state={"phase": "idle", **change})
    expect(view.locator(".nbllm-status")).to_have_text(said)
    chat.page.evaluate(_END_TIMERS)
    expect(view.locator(".nbllm-status")).to_have_text("")
    chat.update(header={"context": {"used": 600, "length": 2048}})
    expect(chat.show().locator(".nbllm-status")).to_have_text("")


@pytest.mark.usefixtures("held_timers")
def test_view_that_goes_leaves_no_timer(chat: ChatPage) -> None:
    chat.begin(transcript=exchange(1), state={"phase": "answering"})
    chat.update(state={"phase": "idle"})
    assert chat.page.evaluate("window.held.timers.size") > 0
    chat.leave()
    assert chat.page.evaluate("window.held.timers.size") == 0


def test_live_of_the_first_turn_hides_everything(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(2))
    chat.deliver(live(1, "anew", after=0, question=question(1, "another beginning")))
    expect(view.get_by_text("answer 1")).to_be_hidden()
    expect(view.get_by_text("question 2")).to_be_hidden()


# The composer


def test_enter_sends_and_empties_the_box(chat: ChatPage) -> None:
    view = chat.begin()
    type_and_send(view, "What is a monad?")
    assert chat.sent("send") == [{"do": "send", "text": "What is a monad?", "attachments": []}]
    expect(box(view)).to_have_value("")
    expect(box(view)).to_be_focused()
    ids = chat.ids()
    assert len(set(ids)) == len(ids)


def test_shift_enter_breaks_the_line(chat: ChatPage) -> None:
    view = chat.begin()
    box(view).press_sequentially("one")
    box(view).press("Shift+Enter")
    box(view).press_sequentially("two")
    expect(box(view)).to_have_value("one\ntwo")
    assert chat.sent("send") == []
    view.locator(".nbllm-send").click()
    assert [one["text"] for one in chat.sent("send")] == ["one\ntwo"]


@pytest.mark.parametrize(
    "event", ["{ isComposing: true }", "{ keyCode: 229 }"], ids=["composing", "key-code-of-an-input-method"]
)
def test_enter_of_an_input_method_does_not_send(chat: ChatPage, event: str) -> None:
    view = chat.begin()
    box(view).fill("にほん")
    press = f"(box) => box.dispatchEvent(new KeyboardEvent('keydown', {{ key: 'Enter', bubbles: true, ...{event} }}))"
    box(view).evaluate(press)
    assert chat.sent("send") == []
    expect(box(view)).to_have_value("にほん")


@pytest.mark.parametrize("text", ["", "  \n "], ids=["empty", "blank"])
def test_nothing_is_not_sent(chat: ChatPage, text: str) -> None:
    view = chat.begin()
    type_and_send(view, text)
    assert chat.sent("send") == []


def test_arrows_go_through_what_was_asked(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(2))
    for key, expected in (
        *(("ArrowUp", "question 2"), ("ArrowUp", "question 1"), ("ArrowUp", "question 1")),
        *(("ArrowDown", "question 2"), ("ArrowDown", ""), ("ArrowDown", "")),
    ):
        box(view).press(key)
        expect(box(view)).to_have_value(expected)


def test_arrows_never_overwrite_a_draft(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(2))
    box(view).press("ArrowUp")
    box(view).press_sequentially(", but shorter")
    box(view).press("ArrowUp")
    expect(box(view)).to_have_value("question 2, but shorter")


def test_arrows_move_within_a_longer_text(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(1))
    box(view).fill("first line\nsecond line")
    box(view).press("ArrowUp")
    expect(box(view)).to_have_value("first line\nsecond line")


def test_box_grows_with_its_text(chat: ChatPage) -> None:
    view = chat.begin()
    height = "(box) => box.getBoundingClientRect().height"
    low = box(view).evaluate(height)
    box(view).fill("line\n" * 5)
    assert box(view).evaluate(height) > low + 40
    box(view).fill("line\n" * 200)
    assert box(view).evaluate(height) < 400
    box(view).fill("")
    assert box(view).evaluate(height) == low


def test_draft_comes_back_into_an_empty_box_only(chat: ChatPage) -> None:
    view = chat.begin()
    chat.update(state={"draft": "lost question", "error": "no model; download one"})
    expect(box(view)).to_have_value("lost question")
    expect(view.locator(".nbllm-error")).to_contain_text("no model; download one")
    box(view).fill("something newer")
    chat.update(state={"draft": "another", "error": ""})
    expect(box(view)).to_have_value("something newer")
    expect(view.locator(".nbllm-error")).to_be_hidden()


def test_draft_comes_back_where_it_was_typed(chat: ChatPage) -> None:
    view, other = chat.begin(), chat.show()
    type_and_send(view, "Sum up")
    chat.update(state={"phase": "waiting"})
    chat.update(state={"phase": "idle", "draft": "Sum up"})
    expect(box(view)).to_have_value("Sum up")
    expect(box(other)).to_have_value("")


def test_refused_question_comes_back(chat: ChatPage) -> None:
    view = chat.begin()
    chat.refuse("wait for the answer, or stop it")
    type_and_send(view, "Too early")
    expect(box(view)).to_have_value("Too early")
    expect(view.locator(".nbllm-error")).to_contain_text("wait for the answer, or stop it")


def test_refused_question_does_not_replace_a_newer_text(chat: ChatPage) -> None:
    view = chat.begin()
    chat.deafen()
    type_and_send(view, "Too early")
    box(view).fill("newer")
    chat.deliver({"is": "got", "id": chat.ids()[-1], "refused": "no"})
    assert "Too early" in box(view).input_value()
    assert "newer" in box(view).input_value()


def test_busy_kernel_says_when_the_question_goes_out(chat: ChatPage) -> None:
    view = chat.begin()
    interrupt = view.locator(".nbllm-interrupt")
    expect(interrupt).to_be_hidden()
    chat.deafen()
    type_and_send(view, "Later")
    expect(view.get_by_text("Will be sent when the running cell ends").first).to_be_visible()
    expect(interrupt).to_have_text("Interrupt the running cell")
    interrupt.click()
    assert chat.page.evaluate("window.model.interrupts") == 1
    chat.deliver({"is": "got", "id": chat.ids()[-1], "refused": ""})
    expect(interrupt).to_be_hidden()
    expect(view.get_by_text("Will be sent when the running cell ends")).to_have_count(0)


def test_front_end_without_a_kernel_has_no_interrupt_button(chat: ChatPage) -> None:
    view = chat.begin(kernel=False)
    chat.deafen()
    type_and_send(view, "Later")
    expect(view.get_by_text("Will be sent when the running cell ends").first).to_be_visible()
    expect(view.locator(".nbllm-interrupt")).to_be_hidden()


# Stop


def test_stop_goes_by_the_route_and_by_the_comm(chat: ChatPage) -> None:
    view = chat.begin()
    stop = view.locator(".nbllm-stop")
    expect(stop).to_be_hidden()
    chat.update(state={"phase": "answering"})
    with chat.page.expect_response("**/nbllm/stop"):
        stop.click()
    assert len(chat.sent("stop")) == 1
    (request,) = chat.stops
    assert request.method == "POST"
    assert json.loads(request.post_data or "") == {"token": "token"}
    assert request.headers["x-xsrftoken"] == "xsrf-of-the-page"
    chat.update(state={"phase": "idle"})
    expect(stop).to_be_hidden()


@pytest.mark.parametrize("phase", ["loading", "waiting", "answering"])
def test_stop_is_there_in_every_busy_phase(chat: ChatPage, phase: str) -> None:
    view = chat.begin(state={"phase": phase})
    expect(view.locator(".nbllm-stop")).to_be_visible()
    expect(view.locator(".nbllm-stop")).to_be_enabled()


def test_stop_without_a_route_goes_by_the_comm(chat: ChatPage) -> None:
    view = chat.begin(state={"phase": "answering"}, stop_token="")
    view.locator(".nbllm-stop").click()
    assert len(chat.sent("stop")) == 1
    assert chat.stops == []


@pytest.mark.parametrize("status", [0, 404, 403])
def test_stop_survives_a_route_that_fails(chat: ChatPage, status: int) -> None:
    view = chat.begin(state={"phase": "answering"})
    chat.stop_status = status
    with chat.page.expect_request("**/nbllm/stop"):
        view.locator(".nbllm-stop").click()
    assert len(chat.sent("stop")) == 1
    chat.update(state={"phase": "idle"})
    type_and_send(view, "Still alive")
    assert len(chat.sent("send")) == 1
    chat.problems[:] = [one for one in chat.problems if "Failed to load resource" not in one]  # Chromium's own line


def test_escape_stops(chat: ChatPage) -> None:
    view = chat.begin(state={"phase": "answering"})
    box(view).press("Escape")
    assert len(chat.sent("stop")) == 1


def test_answer_under_way_keeps_the_next_question_in_its_box(chat: ChatPage) -> None:
    view = chat.begin(state={"phase": "answering"})
    type_and_send(view, "Too early")
    assert chat.sent("send") == []
    expect(box(view)).to_have_value("Too early")
    expect(view.locator(".nbllm-error")).to_contain_text("stop")


def test_complaint_can_be_put_away(chat: ChatPage) -> None:
    view = chat.begin(state={"error": "no model"})
    view.locator(".nbllm-error").get_by_role("button").click()
    expect(view.locator(".nbllm-error")).to_be_hidden()
    chat.update(state={"error": "still no model"})
    expect(view.locator(".nbllm-error")).to_contain_text("still no model")


# Attachments


def put_files(view: Locator, *files: tuple[str, str, bytes]) -> None:
    payload: Any = [{"name": name, "mimeType": kind, "buffer": content} for name, kind, content in files]
    view.locator("input[type=file]").set_input_files(payload)


def hand_over(view: Locator, event: str, name: str, kind: str, content: str) -> None:
    """Drop or paste a file."""
    script = """([event, name, kind, content]) => {
      const data = new DataTransfer();
      data.items.add(new File([content], name, { type: kind }));
      const box = document.querySelector(".nbllm-composer textarea");
      const made = event === "paste"
        ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })
        : new DragEvent(event, { dataTransfer: data, bubbles: true, cancelable: true });
      box.dispatchEvent(made);
    }"""
    view.page.evaluate(script, [event, name, kind, content])


def chips(view: Locator) -> Locator:
    return view.locator(".nbllm-composer .nbllm-chip")


def test_text_file_becomes_a_chip_and_is_sent(chat: ChatPage) -> None:
    view = chat.begin()
    put_files(view, ("notes.txt", "text/plain", b"one two"))
    expect(chips(view)).to_contain_text("notes.txt")
    type_and_send(view, "Sum up")
    (message,) = chat.sent("send")
    assert message["attachments"] == [{"name": "notes.txt", "type": "text/plain", "text": "one two"}]
    expect(chips(view)).to_have_count(0)


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_file_may_be_dropped_or_pasted(chat: ChatPage, event: str) -> None:
    view = chat.begin()
    hand_over(view, event, "data.csv", "text/csv", "a,b")
    expect(chips(view)).to_contain_text("data.csv")


def test_image_is_refused_with_its_reason(chat: ChatPage) -> None:
    view = chat.begin()
    hand_over(view, "paste", "cat.png", "image/png", "PNG")
    expect(view.get_by_text("smollm2-135m reads text, not images").first).to_be_visible()
    expect(chips(view)).to_have_count(0)


def test_file_that_is_too_large_is_refused(chat: ChatPage) -> None:
    view = chat.begin()
    put_files(view, ("long.txt", "text/plain", b"x" * 1001))
    expect(view.locator(".nbllm-error")).to_contain_text("long.txt")
    expect(chips(view)).to_have_count(0)


def test_binary_file_is_refused(chat: ChatPage) -> None:
    view = chat.begin()
    put_files(view, ("program.bin", "application/octet-stream", b"\x00\x01\xff\xfe\x00"))
    expect(view.locator(".nbllm-error")).to_contain_text("program.bin")
    expect(chips(view)).to_have_count(0)


def test_one_file_too_many_is_refused(chat: ChatPage) -> None:
    view = chat.begin()
    put_files(view, *((f"{number}.txt", "text/plain", b"x") for number in range(3)))
    expect(view.locator(".nbllm-error")).to_be_visible()
    expect(chips(view)).to_have_count(2)


def test_chip_can_be_removed(chat: ChatPage) -> None:
    view = chat.begin()
    put_files(view, ("a.txt", "text/plain", b"a"), ("b.txt", "text/plain", b"b"))
    chips(view).first.get_by_role("button", name=re.compile("a.txt")).click()
    expect(chips(view)).to_have_count(1)
    type_and_send(view, "And?")
    assert [one["name"] for one in chat.sent("send")[0]["attachments"]] == ["b.txt"]


def test_refused_question_gets_its_files_back(chat: ChatPage) -> None:
    view = chat.begin()
    chat.refuse("wait")
    put_files(view, ("a.txt", "text/plain", b"a"))
    type_and_send(view, "Sum up")
    expect(chips(view)).to_contain_text("a.txt")


def test_question_that_failed_gets_its_files_back(chat: ChatPage) -> None:
    view = chat.begin()
    put_files(view, ("a.txt", "text/plain", b"a"))
    type_and_send(view, "Sum up")
    chat.update(state={"phase": "waiting"})
    expect(chips(view)).to_have_count(0)
    chat.update(state={"phase": "idle", "draft": "Sum up", "error": "too much of it; say less"})
    expect(box(view)).to_have_value("Sum up")
    expect(chips(view)).to_contain_text("a.txt")


def test_file_name_is_text(chat: ChatPage) -> None:
    view = chat.begin()
    put_files(view, ("<img src=x onerror=window.attacked=1>.txt", "text/plain", b"a"))
    expect(chips(view)).to_contain_text("<img src=x")
    assert chat.page.evaluate("window.attacked") is None


# The head


def settings(view: Locator) -> Locator:
    view.locator(".nbllm-settings-button").click()
    form = view.locator(".nbllm-settings")
    expect(form).to_be_visible()
    return form


def test_head_shows_the_models_and_sends_the_choice(chat: ChatPage) -> None:
    view = chat.begin()
    picker = view.locator(".nbllm-model")
    expect(picker).to_have_value("smollm2-135m")
    expect(picker.locator("optgroup[label=Loaded] option")).to_have_text("smollm2-135m")
    expect(picker.locator("optgroup[label=Available] option")).to_have_text(re.compile(r"gemma3-270m\W+253 MB"))
    picker.select_option("gemma3-270m")
    assert chat.sent("model") == [{"do": "model", "name": "gemma3-270m"}]


def test_refused_model_leaves_the_picker_as_it_was(chat: ChatPage) -> None:
    view = chat.begin()
    chat.refuse("no such file")
    view.locator(".nbllm-model").select_option("gemma3-270m")
    expect(view.locator(".nbllm-error")).to_contain_text("no such file")
    expect(view.locator(".nbllm-model")).to_have_value("smollm2-135m")


def test_head_opens_and_begins_conversations(chat: ChatPage) -> None:
    view = chat.begin()
    view.locator(".nbllm-conversation").select_option("side")
    view.locator(".nbllm-new").click()
    assert chat.sent("open") == [{"do": "open", "name": "side"}]
    assert chat.sent("new") == [{"do": "new"}]


def test_context_meter_says_how_full_it_is(chat: ChatPage) -> None:
    view = chat.begin()
    meter = view.get_by_role("meter")
    expect(meter).to_have_attribute("aria-valuenow", "512")
    expect(meter).to_have_attribute("aria-valuemax", "2048")
    chat.update(header={"context": None})
    expect(view.locator(".nbllm-context")).to_be_hidden()


def test_settings_send_what_was_changed_only(chat: ChatPage) -> None:
    view = chat.begin()
    form = settings(view)
    form.get_by_label("Temperature").fill("0.2")
    form.get_by_label("Stop at").fill("END\nSTOP")
    form.locator("button[type=submit]").click()
    assert chat.sent("settings") == [{"do": "settings", "values": {"temperature": 0.2, "stop": ["END", "STOP"]}}]


def test_emptied_setting_is_the_default_again(chat: ChatPage) -> None:
    fields = [field | ({"value": 7} if field["name"] == "seed" else {}) for field in HEADER["settings"]]
    view = chat.begin(header={"settings": fields})
    form = settings(view)
    expect(form.get_by_label("Seed")).to_have_value("7")
    form.get_by_label("Seed").fill("")
    form.locator("button[type=submit]").click()
    assert chat.sent("settings") == [{"do": "settings", "values": {"seed": None}}]


def test_settings_with_nothing_changed_send_nothing(chat: ChatPage) -> None:
    view = chat.begin()
    settings(view).locator("button[type=submit]").click()
    assert chat.sent("settings") == []


def test_settings_that_are_edited_survive_a_new_header(chat: ChatPage) -> None:
    view = chat.begin()
    form = settings(view)
    form.get_by_label("Temperature").fill("0.2")
    chat.update(header={"context": {"used": 600, "length": 2048}})
    expect(form.get_by_label("Temperature")).to_have_value("0.2")


def test_conversation_is_renamed(chat: ChatPage) -> None:
    view = chat.begin()
    view.locator(".nbllm-rename").click()
    name = view.locator("input:focus")
    expect(name).to_have_value("main")
    name.fill("about monads")
    name.press("Enter")
    assert chat.sent("rename") == [{"do": "rename", "name": "about monads"}]
    expect(view.locator(".nbllm-rename")).to_be_focused()


def test_refused_name_stays_to_be_corrected(chat: ChatPage) -> None:
    view, reason = chat.begin(), "there is a conversation 'side' already"
    chat.refuse(reason)
    view.locator(".nbllm-rename").click()
    name = view.get_by_label("New name of the conversation")
    name.fill("side")
    name.press("Enter")
    expect(view.locator(".nbllm-rename-form").get_by_role("alert")).to_have_text(reason)
    expect(name).to_have_accessible_description(reason)
    expect(name).to_have_attribute("aria-invalid", "true")
    expect(name).to_have_value("side")
    expect(name).to_be_focused()
    expect(view.locator(".nbllm-error")).to_be_empty()
    chat.refuse("")
    name.fill("sideways")
    name.press("Enter")
    expect(name).to_be_hidden()
    expect(view.locator(".nbllm-rename")).to_be_focused()
    view.locator(".nbllm-rename").click()
    expect(view.locator(".nbllm-reason")).to_be_empty()
    expect(name).to_have_attribute("aria-invalid", "false")


def test_refusal_of_a_name_that_was_put_away_is_not_lost(chat: ChatPage) -> None:
    view = chat.begin()
    chat.deafen()
    view.locator(".nbllm-rename").click()
    view.locator("input:focus").fill("side")
    chat.page.keyboard.press("Enter")
    chat.page.keyboard.press("Escape")
    chat.deliver({"is": "got", "id": chat.ids()[-1], "refused": "taken"})
    expect(view.locator(".nbllm-error")).to_have_text("taken")
    expect(view.locator(".nbllm-rename-form")).to_be_hidden()


def test_menu_of_formats_is_walked_with_the_arrows(chat: ChatPage) -> None:
    view = chat.begin()
    view.locator(".nbllm-export").focus()
    chat.page.keyboard.press("Enter")
    expect(view.get_by_role("menuitem").first).to_be_focused()
    chat.page.keyboard.press("ArrowUp")
    expect(view.get_by_role("menuitem").last).to_be_focused()
    chat.page.keyboard.press("Escape")
    expect(view.get_by_role("menu")).to_be_hidden()
    expect(view.locator(".nbllm-export")).to_be_focused()


def test_freeze_is_asked_for(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(1))
    view.locator(".nbllm-freeze").click()
    assert chat.sent("freeze") == [{"do": "freeze"}]


# The actions of a message


def act(view: Locator, message: int, name: str) -> None:
    messages(view).nth(message).hover()
    messages(view).nth(message).locator(f".nbllm-{name}").click()


def test_regenerate_names_the_turn(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(2))
    act(view, 3, "regenerate")
    assert chat.sent("regenerate") == [{"do": "regenerate", "turn": 2}]


def test_branches_are_numbered_and_chosen(chat: ChatPage) -> None:
    branched = question(2, "question 2", branches={"index": 1, "turns": [1, 2, 5]})
    view = chat.begin(transcript=[branched, answer(2, "answer 2")])
    expect(view.get_by_text(re.compile(r"2\s*/\s*3"))).to_be_visible()
    view.locator(".nbllm-branch-prev").first.click()
    view.locator(".nbllm-branch-next").first.click()
    assert [one["turn"] for one in chat.sent("branch")] == [1, 5]


def test_first_branch_has_none_before_it(chat: ChatPage) -> None:
    view = chat.begin(transcript=[question(1, "q", branches={"index": 0, "turns": [1, 2]}), answer(1, "a")])
    expect(view.locator(".nbllm-branch-prev").first).to_be_disabled()
    expect(view.locator(".nbllm-branch-next").first).to_be_enabled()


def test_without_branches_there_is_nothing_to_choose(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(1))
    expect(view.locator(".nbllm-branch-prev:visible, .nbllm-branch-next:visible")).to_have_count(0)


def test_edited_question_is_sent_with_its_turn(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(1))
    act(view, 0, "edit")
    editor = view.locator("textarea:focus")
    expect(editor).to_have_value("question 1")
    editor.fill("a better question")
    editor.press("Enter")
    assert chat.sent("edit") == [{"do": "edit", "turn": 1, "text": "a better question"}]
    assert chat.sent("send") == []


def test_escape_leaves_the_question_as_it_was(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(1))
    act(view, 0, "edit")
    editor = view.locator("textarea:focus")
    editor.fill("something else")
    editor.press("Escape")
    assert chat.sent("edit") == []
    expect(messages(view).first).to_contain_text("question 1")
    type_and_send(view, "a new question")
    assert [one["text"] for one in chat.sent("send")] == ["a new question"]


def test_answer_is_copied_as_markdown(chat: ChatPage) -> None:
    view = chat.begin(transcript=[question(1, "q"), answer(1, "bold", text="**bold**")])
    act(view, 1, "copy")
    expect(view.get_by_text("Copied").first).to_be_attached()
    assert chat.page.evaluate("navigator.clipboard.readText()") == "**bold**"


def test_code_is_copied_without_its_colours(chat: ChatPage) -> None:
    block = code(["span", {"class": "k"}, "import"], " os\n")
    view = chat.begin(transcript=[answer(1, block)])
    view.locator("pre").hover()
    view.locator(".nbllm-body").get_by_role("button", name=re.compile("copy", re.IGNORECASE)).click()
    expect(view.get_by_text("Copied").first).to_be_attached()
    assert chat.page.evaluate("navigator.clipboard.readText()").rstrip("\n") == "import os"


def test_export_becomes_a_download(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(1))
    view.locator(".nbllm-export").click()
    view.get_by_role("menuitem", name="Markdown").click()
    assert chat.sent("export") == [{"do": "export", "format": "markdown"}]
    with chat.page.expect_download() as found:
        chat.deliver({"is": "export", "name": "chat-1.md", "type": "text/markdown", "content": "# Chat\n"})
    assert found.value.suggested_filename == "chat-1.md"
    assert found.value.path().read_text() == "# Chat\n"


# Scrolling


AT_BOTTOM = """() => { const feed = document.querySelector(".nbllm-feed");
  return feed.scrollHeight - feed.clientHeight - feed.scrollTop < 8; }"""


def at_bottom(chat: ChatPage) -> bool:
    return bool(chat.page.evaluate(AT_BOTTOM))


def painted(chat: ChatPage) -> None:
    """Two frames on: what waits for a frame has run, and was laid out."""
    chat.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_feed_follows_the_answer_at_the_bottom(chat: ChatPage) -> None:
    chat.begin(transcript=exchange(30))
    painted(chat)
    assert at_bottom(chat)
    chat.deliver(live(1), *(delta(number, "words and more words\n" * 5) for number in range(2, 12)))
    painted(chat)
    assert at_bottom(chat)


def test_feed_stays_where_the_reader_is(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(30))
    expect(view.locator(".nbllm-message")).to_have_count(60)
    painted(chat)
    feed = view.locator(".nbllm-feed")
    expect(view.locator(".nbllm-latest")).to_be_hidden()
    feed.hover()
    chat.page.mouse.wheel(0, -600)
    expect(view.locator(".nbllm-latest")).to_be_visible()
    first = "(feed) => [...feed.children].find((one) => one.getBoundingClientRect().bottom > "
    first += "feed.getBoundingClientRect().top).textContent"
    reading = feed.evaluate(first)
    chat.deliver(live(1), *(delta(number, "words and more words\n" * 5) for number in range(2, 12)))
    painted(chat)
    assert feed.evaluate(first) == reading
    assert not at_bottom(chat)
    view.locator(".nbllm-latest").click()
    expect(view.locator(".nbllm-latest")).to_be_hidden()
    chat.page.wait_for_function(AT_BOTTOM)  # it glides


def test_own_question_brings_the_reader_to_the_bottom(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(30))
    expect(view.locator(".nbllm-message")).to_have_count(60)  # the older ones come when the page has time
    painted(chat)
    view.locator(".nbllm-feed").evaluate("(feed) => { feed.scrollTop = 0; }")
    painted(chat)
    type_and_send(view, "And then?")
    chat.deliver(live(1, "so"))
    painted(chat)
    assert at_bottom(chat)


# What may be built


def test_task_is_a_box_that_cannot_be_ticked(chat: ChatPage) -> None:
    tasks = ["ul", {}, *(["li", {}, ["input", {"checked": done}], " a task"] for done in (True, False))]
    view = chat.begin(transcript=[answer(1, tasks)])
    done, to_do = view.get_by_role("checkbox").all()
    expect(done).to_be_checked()
    expect(done).to_have_accessible_name("done")
    expect(to_do).not_to_be_checked()
    expect(to_do).to_have_accessible_name("to do")
    for box_of_task in (done, to_do):
        expect(box_of_task).to_be_disabled()
    forged = {"type": "image", "src": "https://evil.invalid/x", "formaction": "x", "onfocus": "x", "name": "x"}
    chat.update(transcript=[answer(1, ["input", forged])])
    expect(view.get_by_role("checkbox")).to_have_count(1)
    names = view.locator(".nbllm-body input").evaluate("(box) => box.getAttributeNames().sort()")
    assert names == ["aria-label", "disabled", "type"]


def test_links_open_elsewhere_and_tell_nothing(chat: ChatPage) -> None:
    link = ["p", {}, ["a", {"href": "https://example.org/x?y=1", "title": "there"}, "there"]]
    view = chat.begin(transcript=[answer(1, link)])
    shown = view.locator(".nbllm-body a")
    expect(shown).to_have_attribute("href", "https://example.org/x?y=1")
    expect(shown).to_have_attribute("target", "_blank")
    assert {"noopener", "noreferrer"} <= set((shown.get_attribute("rel") or "").split())


HOSTILE = [
    pytest.param(["script", {}, "window.attacked=1"], id="script"),
    pytest.param(["img", {"src": "https://evil.invalid/x", "onerror": "window.attacked=1"}], id="image"),
    pytest.param(["iframe", {"src": "https://evil.invalid/"}], id="frame"),
    pytest.param(["style", {}, "body { display: none }"], id="style"),
    pytest.param(["SCRIPT", {}, "window.attacked=1"], id="upper-case"),
    pytest.param(["svg", {"onload": "window.attacked=1"}], id="svg"),
    pytest.param(["object", {"data": "https://evil.invalid/"}], id="object"),
    pytest.param(["form", {"action": "https://evil.invalid/"}, "x"], id="form"),
    pytest.param(["constructor", {}, "x"], id="name-of-an-object-member"),
    pytest.param(["p", {"onclick": "window.attacked=1"}, "x"], id="handler"),
    pytest.param(["p", {"style": "position:fixed;inset:0"}, "x"], id="style-attribute"),
    pytest.param(["p", {"id": "jupyter-config-data"}, "x"], id="id"),
    pytest.param(["p", {"class": "jp-Dialog nbllm-stop"}, "x"], id="foreign-class"),
    pytest.param(["a", {"href": "javascript:window.attacked=1"}, "x"], id="javascript-link"),
    pytest.param(["a", {"href": " java\tscript:window.attacked=1"}, "x"], id="javascript-link-with-a-tab"),
    pytest.param(["a", {"href": "data:text/html,<script>1</script>"}, "x"], id="data-link"),
    pytest.param(["a", {"href": "/api/shutdown"}, "x"], id="link-to-the-server"),
    pytest.param(["a", {"href": "https://example.org", "ping": "https://evil.invalid/"}, "x"], id="ping"),
    pytest.param(["p", {"srcdoc": "<script>1</script>", "data-commandlinker-command": "x"}, "x"], id="command"),
    pytest.param(["p", {}, ["p", {}, ["script", {}, "window.attacked=1"]]], id="nested"),
    pytest.param(["p", None, "x"], id="no-attributes"),
    pytest.param(["p"], id="name-only"),
    pytest.param([], id="empty"),
    pytest.param([["p"], {}, "x"], id="list-for-a-name"),
    pytest.param({"tag": "script"}, id="object-for-a-node"),
    pytest.param(7, id="number"),
    pytest.param(None, id="null"),
]
_FOREIGN = """(view) => [...view.querySelectorAll(".nbllm-body *, .nbllm-tail *")].flatMap((one) => [
  ...(/^(P|DIV|SPAN|A|BUTTON|CODE|PRE)$/.test(one.tagName) ? [] : [one.tagName]),
  ...[...one.attributes].filter(({ name, value }) =>
    /^(on|src|style$|id$|ping|data-command)/.test(name) || (name === "href" && !/^(https?|mailto):/.test(value))
    || (name === "class" && /jp-|nbllm-stop/.test(value))).map(({ name, value }) => `${name}=${value}`)])"""


@pytest.mark.parametrize("node", HOSTILE)
def test_hostile_node_is_not_built(chat: ChatPage, node: Any) -> None:
    view = chat.begin(transcript=[answer(1, "before", node, "after")])
    chat.deliver(live(1, blocks=[node, paragraph("live")]), delta(2, blocks=[node], tail="tail"))
    expect(view.locator(".nbllm-body").first).to_contain_text("after")
    expect(tail(view)).to_have_text("tail")
    assert view.evaluate(_FOREIGN) == []
    assert chat.page.evaluate("window.attacked") is None


def test_deep_nodes_do_not_break_the_page(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(2))
    chat.page.evaluate(
        """() => {
          let node = "deep";
          for (let depth = 0; depth < 20000; depth += 1) node = ["blockquote", {}, node];
          window.model.traits.transcript = [{ ...window.model.traits.transcript[1], blocks: [node] }];
          window.model.trigger("change:transcript");
        }"""
    )
    expect(messages(view)).to_have_count(1)
    expect(messages(view)).to_contain_text("deep")


@pytest.mark.parametrize("trait", ["transcript", "header"])
def test_names_are_text(chat: ChatPage, trait: str) -> None:
    attack = "<img src=x onerror=window.attacked=1>"
    if trait == "transcript":
        told = {"footer": attack, "reasoning": attack, "model": attack}
        asked = question(1, attack, attachments=[{"name": attack, "size": 3}])
        view = chat.begin(transcript=[asked, answer(1, attack, **told)], state={"error": attack, "detail": attack})
    else:
        models = [{"name": attack, "note": attack, "loaded": True}]
        head = {"model": attack, "models": models, "conversation": attack, "conversations": [attack]}
        view = chat.begin(header=head)
        settings(view)
    assert view.locator("img").count() == 0
    assert chat.page.evaluate("window.attacked") is None


# The page around it


@pytest.mark.parametrize(
    ("attribute", "value", "theme"),
    [
        pytest.param("data-jp-theme-light", "false", "dark", id="jupyterlab-night"),
        pytest.param("data-jp-theme-light", "true", "light", id="jupyterlab-day"),
        pytest.param("data-vscode-theme-kind", "vscode-dark", "dark", id="vscode-night"),
        pytest.param("data-vscode-theme-kind", "vscode-high-contrast", "dark", id="vscode-contrast"),
        pytest.param("data-vscode-theme-kind", "vscode-light", "light", id="vscode-day"),
    ],
)
def test_theme_is_the_front_ends(chat: ChatPage, attribute: str, value: str, theme: str) -> None:
    view = chat.begin()
    root = view.locator(".nbllm-chat")
    try:
        other = {"dark": "light", "light": "dark"}[theme]
        chat.page.emulate_media(color_scheme=other)  # type: ignore[arg-type]
        expect(root).to_have_attribute("data-theme", other)
        chat.page.evaluate("([name, value]) => document.body.setAttribute(name, value)", [attribute, value])
        expect(root).to_have_attribute("data-theme", theme)
        chat.page.evaluate("(name) => document.body.removeAttribute(name)", attribute)
        expect(root).to_have_attribute("data-theme", other)
    finally:
        chat.page.evaluate("(name) => document.body.removeAttribute(name)", attribute)
        chat.page.emulate_media(color_scheme="light")


_TOUR = """(view) => {
  const wanted = [...view.querySelectorAll("button, select, textarea, input, a, summary")].filter((one) =>
    !one.disabled && one.tabIndex >= 0 && one.getClientRects().length > 0);
  wanted.forEach((one, at) => { one.stop = at; });
  window.tour = new Set();
  view.addEventListener("focusin", (event) => window.tour.add(event.target.stop));
  return wanted.length;
}"""


def test_keyboard_alone_reaches_everything(chat: ChatPage) -> None:
    link = ["p", {}, ["a", {"href": "https://example.org"}, "there"]]
    told = answer(1, link, code("x = 1"), reasoning="Let me think.")
    asked = question(1, "question", branches={"index": 1, "turns": [1, 2, 3]})
    view = chat.begin(transcript=[asked, told])
    settings(view)
    wanted = view.evaluate(_TOUR)
    assert wanted > 20
    chat.page.evaluate("document.activeElement.blur()")
    for _ in range(wanted + 10):  # the feed and what scrolls in it are stops too
        chat.page.keyboard.press("Tab")
    reached = chat.page.evaluate("[...window.tour].filter((stop) => stop !== undefined).length")
    assert reached == wanted


def test_events_of_the_composer_stay_inside(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(1))
    chat.heard()
    box(view).click()
    box(view).press_sequentially("dd")  # twice d deletes a notebook's cell
    box(view).press("Escape")
    box(view).press("Control+z")
    hand_over(view, "paste", "a.txt", "text/plain", "a")
    hand_over(view, "dragover", "a.txt", "text/plain", "a")
    hand_over(view, "drop", "a.txt", "text/plain", "a")
    assert not chat.heard() & {"keydown", "keyup", "keypress", "paste", "drop", "dragover", "input"}


def test_keys_in_the_feed_and_the_head_stay_inside(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(1))
    view.locator(".nbllm-new").focus()
    chat.page.keyboard.press("d")
    view.locator(".nbllm-model").focus()
    chat.page.keyboard.press("a")
    assert not chat.heard() & {"keydown", "keyup", "keypress"}


def test_closed_view_leaves_no_listener(chat: ChatPage) -> None:
    chat.leave()
    before = chat.num_listeners()
    view = chat.begin(transcript=exchange(1))
    chat.deliver(live(1, "One"))
    open_one = chat.num_listeners()
    second = chat.show()
    settings(second)
    assert chat.num_listeners() > open_one
    chat.close(1)
    assert chat.num_listeners() == open_one
    chat.deliver(delta(2, " two"))
    expect(tail(view)).to_have_text("One two")
    chat.leave()
    assert chat.num_listeners() == before


def test_kernel_that_went_gives_the_question_back(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(1))
    chat.deafen()
    type_and_send(view, "Anybody?")
    chat.page.evaluate("() => { window.model.comm_live = false; window.model.trigger('comm_live_update'); }")
    expect(view.locator(".nbllm-status")).to_contain_text("The kernel is gone")
    expect(box(view)).to_have_value("Anybody?")
    expect(messages(view)).to_have_count(2)


def test_kernel_that_went_leaves_the_way_to_go_on(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(1), state={"chat": "20261122-0a1b2c3d4e5f"})
    chat.page.evaluate("() => { window.model.comm_live = false; window.model.trigger('comm_live_update'); }")
    expect(view.locator(".nbllm-status")).to_contain_text("%llm chat 20261122-0a1b2c3d4e5f")


def test_closed_chat_takes_no_questions(chat: ChatPage) -> None:
    view = chat.begin(transcript=exchange(1))
    chat.update(state={"phase": "closed"})
    expect(view.locator(".nbllm-send")).to_be_disabled()
    expect(messages(view)).to_have_count(2)


@pytest.mark.parametrize("width", [320, 480, 900])
def test_nothing_is_wider_than_the_chat(chat: ChatPage, width: int) -> None:
    cells = [["td", {}, f"column {number} of the table"] for number in range(20)]
    table = ["table", {}, ["tbody", {}, ["tr", {}, *cells]]]
    wide = answer(1, "w" * 500, code("x = " + "1" * 500), table, text="")
    view = chat.begin(transcript=[question(1, "q" * 500), wide], state={"error": "e" * 300})
    settings(view)
    try:
        chat.page.set_viewport_size({"width": width, "height": 700})
        overflow = """(view) => { const right = view.getBoundingClientRect().right + 0.5;
          const inBlock = (one) => one.closest("pre, .nbllm-scroll, table") && !one.matches("pre, .nbllm-scroll");
          return [...view.querySelectorAll("*")].filter((one) => !inBlock(one) && one.getClientRects().length
            && one.getBoundingClientRect().right > right).map((one) => one.className || one.tagName); }"""
        assert view.evaluate(overflow) == []
        assert chat.page.evaluate("document.documentElement.scrollWidth") <= width
    finally:
        chat.page.set_viewport_size({"width": 900, "height": 900})
