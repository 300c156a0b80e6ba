from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from nbllm.core import Chunk
from nbllm.markup.characters import normalized
from nbllm.markup.nodes import nodes
from nbllm.notebook.widget.live import Live

if TYPE_CHECKING:
    import pytest

NEVER_S = 1e9
"""An interval after which nothing comes by itself."""
PIECES = ["a", " b\n", "\n", "```\n", "- c\n", "| d | e |\n", "|--|--|\n", "*f*", "`", "$x$", "\r"]
TEXT = "# Title\n\nSome *prose* and `code`.\n\n```python\nx = 1\n```\n\n- a\n- b\n\nthe end"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Reader:
    """A page: follows the messages as chat.js does, and notices what is lost."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.live: dict[str, Any] | None = None
        self.was: dict[str, Any] | None = None
        self.changed = threading.Condition()

    def __call__(self, message: dict[str, Any]) -> None:
        with self.changed:
            assert message["seq"] == len(self.messages) + 1
            self.messages.append(message)
            if message["is"] == "live":
                self.live = None if message["live"] is None else dict(message["live"])
            elif self.live is not None:
                self._grow(self.live, message)
            self.was = self.live or self.was
            self.changed.notify_all()

    def _grow(self, live: dict[str, Any], delta: dict[str, Any]) -> None:
        live["reasoning"] += delta["reasoning"]
        live["blocks"] = [*live["blocks"], *delta["blocks"]]
        live["tail"] = (live["tail"] if delta["tail"] is None else delta["tail"]) + delta["text"]

    def wait_for(self, text: str) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.live is not None and self.live["tail"] == text, 10)


def live_of(reader: Reader, clock: Clock | None = None, interval_s: float = NEVER_S) -> Live:
    return Live(reader, clock or Clock(), interval_s)


def test_first_piece_is_sent_at_once_and_the_next_wait() -> None:
    reader, clock = Reader(), Clock()
    live = live_of(reader, clock, 0.05)
    live.begin("a")
    live.add(Chunk(text="one"))
    assert reader.live is not None
    assert reader.live["tail"] == "one"
    clock.now += 0.05
    live.add(Chunk(text=" two"))
    assert reader.live["tail"] == "one two"
    live.close()


def test_pieces_within_the_interval_are_one_message() -> None:
    reader, clock = Reader(), Clock()
    live = live_of(reader, clock)
    live.begin("a")
    for number in range(100):
        live.add(Chunk(text=f"{number} "))
    assert len(reader.messages) == 2
    clock.now += NEVER_S
    live.add(Chunk(text="end"))
    assert len(reader.messages) == 3
    assert reader.live is not None
    assert reader.live["tail"].endswith("99 end")
    live.close()


def test_what_waits_is_sent_when_nothing_more_comes() -> None:
    reader = Reader()
    live = Live(reader, interval_s=0.01)
    live.begin("a")
    live.add(Chunk(text="one"))
    live.add(Chunk(text=" two"))
    assert reader.wait_for("one two")
    live.add(Chunk(text=" three"))
    assert reader.wait_for("one two three")
    live.end()


def test_thread_lives_only_while_something_streams() -> None:
    reader = Reader()
    live = live_of(reader)
    before = set(threading.enumerate())
    live.begin("a")
    live.add(Chunk(text="one"))
    assert set(threading.enumerate()) == before
    live.add(Chunk(text=" two"))
    (timer,) = set(threading.enumerate()) - before
    live.finish()
    live.end()
    timer.join(10)
    assert not timer.is_alive()


def test_finish_closes_every_block_and_end_takes_the_answer_away() -> None:
    reader = Reader()
    live = live_of(reader)
    live.begin("a", {"id": "aq"}, 3)
    live.add(Chunk(text=TEXT[:20]))
    live.add(Chunk(text=TEXT[20:]))
    assert live.finish() == nodes(TEXT)
    assert reader.live is not None
    assert reader.live["blocks"] == nodes(TEXT)
    assert (reader.live["tail"], reader.live["id"], reader.live["after"]) == ("", "a", 3)
    assert live.finish() == nodes(TEXT)
    live.end()
    assert reader.live is None
    assert reader.messages[-1] == {"is": "live", "live": None, "seq": len(reader.messages)}


def test_late_page_gets_the_whole_and_what_waited_is_not_sent_twice() -> None:
    reader = Reader()
    live = live_of(reader)
    live.begin("a")
    live.add(Chunk(reasoning="because"))
    live.add(Chunk(text="one\n\n"))
    live.add(Chunk(text="two"))
    live.resend()
    assert reader.messages[-1]["is"] == "live"
    assert reader.live is not None
    assert (reader.live["blocks"], reader.live["tail"]) == ([["p", {}, "one"]], "two")
    assert reader.live["reasoning"] == "because"
    live.add(Chunk(text=" three"))
    live.finish()
    assert reader.live["blocks"] == nodes("one\n\ntwo three")


def test_page_that_comes_when_nothing_streams_is_told_so() -> None:
    reader = Reader()
    live = live_of(reader)
    live.resend()
    assert reader.messages == [{"is": "live", "live": None, "seq": 1}]


def test_chunk_without_text_sends_nothing() -> None:
    reader = Reader()
    live = live_of(reader)
    live.add(Chunk(text="before the beginning"))
    live.begin("a")
    live.add(Chunk(finish_reason="stop"))
    assert len(reader.messages) == 1


def test_nothing_is_sent_after_close() -> None:
    reader = Reader()
    live = live_of(reader)
    live.begin("a")
    live.close()
    live.add(Chunk(text="late"))
    assert live.finish() == []
    assert len(reader.messages) == 1


def test_page_that_is_gone_does_not_end_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    def send(message: dict[str, Any]) -> None:
        raise OSError("the socket is closed")

    live = Live(send, Clock(), NEVER_S)
    live.begin("a")
    live.add(Chunk(text="one"))
    assert live.finish() == nodes("one")
    assert "could not update" in caplog.text


def test_what_a_page_cannot_carry_is_replaced() -> None:
    reader = Reader()
    live = live_of(reader)
    live.begin("a")
    live.add(Chunk(reasoning="half \ud83d", text="half \ud83d a character"))
    live.finish()
    assert "\ud83d" not in repr(reader.messages).encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    assert reader.live is not None
    assert reader.live["reasoning"] == "half \N{REPLACEMENT CHARACTER}"


def test_line_break_of_reasoning_in_two_deltas_is_one() -> None:
    reader, clock = Reader(), Clock()
    live = live_of(reader, clock, 1.0)
    live.begin("a")
    for piece in ("one\r", "\ntwo\r", "\rthree"):
        live.add(Chunk(reasoning=piece))
        clock.now += 1.0
    assert [message["reasoning"] for message in reader.messages[1:]] == ["one\n", "two\n", "\nthree"]
    live.resend()
    assert reader.live is not None
    assert reader.live["reasoning"] == "one\ntwo\n\nthree"
    live.close()


@given(
    st.lists(
        st.sampled_from(["a", " b\n", "\n", "```\n", "- c\n", "| d | e |\n", "|--|--|\n", "*f*", "`", "$x$", "\r"])
    ),
    st.data(),
)
def test_page_holds_what_the_whole_text_gives_whenever_it_was_sent(pieces: list[str], data: st.DataObject) -> None:
    reader, clock = Reader(), Clock()
    live = live_of(reader, clock, 1.0)
    live.begin("a")
    for piece in pieces:
        clock.now += data.draw(st.sampled_from([0.0, 2.0]))
        live.add(Chunk(text=piece, reasoning=piece))
        if data.draw(st.integers(0, 9)) == 0:
            live.resend()
    live.finish()
    live.close()
    assert reader.live is not None
    assert reader.live["blocks"] == nodes("".join(pieces))
    assert reader.live["reasoning"] == normalized("".join(pieces))


def test_many_threads_lose_nothing_and_keep_the_order() -> None:
    """The engine's thread adds, the timer's sends, and pages come late, all at once."""
    reader = Reader()
    live = Live(reader, interval_s=0.0005)
    text = [f"{number} " for number in range(2000)]
    is_over = threading.Event()

    def join_late() -> None:
        while not is_over.is_set():
            live.resend()
            is_over.wait(0.001)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    pages = [threading.Thread(target=join_late) for _ in range(2)]
    try:
        live.begin("a")
        for page in pages:
            page.start()
        for piece in text:
            live.add(Chunk(text=piece))
    finally:
        is_over.set()
        for page in pages:
            page.join()
        sys.setswitchinterval(interval)
    assert live.finish() == nodes("".join(text))
    assert reader.live is not None
    assert reader.live["blocks"] == nodes("".join(text))
    live.end()
