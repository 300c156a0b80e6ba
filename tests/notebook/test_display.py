from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core import Chunk, FinishReason, Timings, Usage
from nbllm.markup.safe import safe_markdown
from nbllm.notebook.display import MIN_INTERVAL_S, LiveAnswer, PrintedAnswer
from nbllm.notebook.footer import quiet, usage_line
from nbllm.session.response import Response


class Recorder:
    def __init__(self) -> None:
        self.published: list[dict[str, Any]] = []
        self.now = 100.0

    def publish(self, **options: Any) -> None:
        self.published.append(options)

    @property
    def last(self) -> dict[str, str]:
        data: dict[str, str] = self.published[-1]["data"]
        return data


def response(text: str, reason: FinishReason = "stop") -> Response:
    usage = Usage(prompt_tokens=1200, completion_tokens=21, cached_tokens=800)
    timings = Timings(first_token_s=0.25, decode_s=0.5)
    return Response(text=text, finish_reason=reason, usage=usage, timings=timings)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def view(recorder: Recorder) -> LiveAnswer:
    return LiveAnswer(recorder.publish, lambda: recorder.now)


def test_one_display_id_first_shown_then_updated(view: LiveAnswer, recorder: Recorder) -> None:
    view.status("loading")
    recorder.now += 1
    view.add(Chunk(text="Hi"))
    view.finish(response("Hi"), [], {"nbllm": {}})
    assert len({entry["transient"]["display_id"] for entry in recorder.published}) == 1
    assert [entry["update"] for entry in recorder.published] == [False, True, True]
    assert all({"text/plain", "text/markdown"} == set(entry["data"]) for entry in recorder.published)
    assert recorder.published[-1]["metadata"] == {"nbllm": {}}


def test_updates_are_no_closer_than_the_interval(view: LiveAnswer, recorder: Recorder) -> None:
    times = []
    for _ in range(1000):
        before = len(recorder.published)
        view.add(Chunk(text="word "))
        times += [recorder.now] * (len(recorder.published) - before)
        recorder.now += 0.007
    assert times[0] == 100.0
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert min(gaps) >= MIN_INTERVAL_S - 1e-9
    assert len(times) <= 20 * 7 + 1


def test_chunk_without_text_shows_nothing(view: LiveAnswer, recorder: Recorder) -> None:
    view.add(Chunk(finish_reason="stop"))
    assert recorder.published == []


@given(st.lists(st.text(st.sampled_from("<ab>`*_ \n-|$[](!)&")), max_size=8))
def test_any_split_ends_as_safe_markdown_of_the_whole(pieces: list[str]) -> None:
    recorder = Recorder()
    view = LiveAnswer(recorder.publish, lambda: recorder.now)
    for piece in pieces:
        view.add(Chunk(text=piece))
        recorder.now += 1
    text = "".join(pieces)
    view.finish(response(text), [usage_line(response(text))], {})
    answer = safe_markdown(text).rstrip()
    footer = quiet(usage_line(response(text)))
    assert recorder.last["text/markdown"] == (f"{answer}\n\n{footer}" if answer else footer)


def test_reasoning_is_open_while_it_comes_and_folded_afterwards(view: LiveAnswer, recorder: Recorder) -> None:
    view.add(Chunk(reasoning="Hmm <b>"))
    thinking = recorder.last
    recorder.now += 1
    view.add(Chunk(text="Yes."))
    answering = recorder.last
    assert thinking["text/markdown"].startswith("<details open>")
    assert thinking["text/plain"] == "Thinking…"
    assert answering["text/markdown"].startswith("<details><summary>")
    assert answering["text/markdown"].endswith("Yes.")
    assert "<b>" not in answering["text/markdown"]
    assert answering["text/plain"] == "Yes."


def test_footer_stands_under_the_answer(view: LiveAnswer, recorder: Recorder) -> None:
    view.status("toy: <img>")
    assert "<img" not in recorder.last["text/markdown"]
    view.add(Chunk(text="Hi"))
    view.finish(response("Hi"), ["1 token", "toy: <img>"], {})
    assert recorder.last["text/plain"] == "Hi\n\n1 token\ntoy: <img>"
    assert "<img" not in recorder.last["text/markdown"]
    assert recorder.last["text/markdown"].count("<small>") == 2


def test_plain_text_has_no_control_characters(view: LiveAnswer, recorder: Recorder) -> None:
    view.add(Chunk(text="a\x1b]0;title\x07b\x9b2Jc"))
    assert recorder.last["text/plain"] == "abc"


def test_usage_line_says_what_it_cost() -> None:
    line = usage_line(response("Hi"), 8192)
    assert line == (
        "1,200 tokens in (800 cached), 21 out · first token after 0.25 s · 40 tokens a second · 15% of the context"
    )


@pytest.mark.parametrize("reason", ["length", "interrupted", "timeout"])
def test_usage_line_says_how_it_ended(reason: FinishReason) -> None:
    assert reason in usage_line(response("Hi", reason)).rsplit(" · ", 1)[1]


@given(st.text())
def test_quiet_line_has_no_mark_up_but_its_own(text: str) -> None:
    inner = quiet(text).removeprefix("<small><em>").removesuffix("</em></small>")
    inner = re.sub(r"<span>(&#\d+;)</span>", r"\1", inner)
    assert not set(inner) & set("<>*_`[]\\!|~$@\n")


def test_terminal_gets_the_deltas_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    view = PrintedAnswer()
    view.status("loading toy …")
    for text in ("one\x1b", "[2J two", " three"):
        view.add(Chunk(text=text))
    view.finish(response("one two three"), ["loading toy …", usage_line(response("")), "toy: loaded\x1b[2J"], {})
    assert capsys.readouterr().out == (
        "loading toy …\none[2J two three\n\n"
        "1,200 tokens in (800 cached), 21 out · first token after 0.25 s · 40 tokens a second\ntoy: loaded\n"
    )


def test_terminal_tells_thoughts_from_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    view = PrintedAnswer()
    for chunk in (Chunk(reasoning="Hm"), Chunk(reasoning="m."), Chunk(text="Y"), Chunk(text="es.")):
        view.add(chunk)
    assert capsys.readouterr().out == "[Thinking]\nHmm.\n\n[Answer]\nYes."
