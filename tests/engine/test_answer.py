"""Tokens to chunks: grouped by time, the first at once, nothing lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nbllm.chat.reasoning import ReasoningSplitter
from nbllm.core import Chunk, Timings, TokenLogprob, Usage
from nbllm.engine.answer import GROUP_S, Answer, Clocks
from nbllm.engine.textstream import StopStream


def _answer(*stops: str, splitter: ReasoningSplitter | None = None) -> Answer:
    return Answer(0, StopStream(stops), splitter)


def _finish(answer: Answer) -> Chunk:
    return answer.finish("stop", Usage(), Timings(), 7)


def test_first_token_leaves_at_once_and_the_next_ones_in_a_group() -> None:
    answer = _answer()
    answer.add(1, b"a", None)
    assert answer.due(10.0) is not None
    answer.add(2, b"b", None)
    assert answer.due(10.0 + GROUP_S / 2) is None
    answer.add(3, b"c", None)
    chunk = answer.due(10.0 + 2 * GROUP_S)
    assert chunk is not None
    assert (chunk.text, chunk.tokens) == ("bc", (2, 3))


def test_nothing_is_due_while_there_is_no_text() -> None:
    answer = _answer()
    answer.add(1, "€".encode()[:2], None)
    assert answer.due(10.0) is None
    answer.add(2, "€".encode()[2:], None)
    chunk = answer.due(10.0)
    assert chunk is not None
    assert (chunk.text, chunk.tokens) == ("€", (1, 2))


def test_last_chunk_has_what_was_held_back() -> None:
    answer = _answer("END")
    answer.add(1, b"xEN", None)
    chunk = _finish(answer)
    assert (chunk.text, chunk.finish_reason, chunk.seed) == ("xEN", "stop", 7)


def test_stop_text_is_no_part_of_the_answer() -> None:
    answer = _answer("END")
    answer.add(1, b"xE", None)
    answer.add(2, b"NDmore", None)
    assert answer.is_stopped
    assert _finish(answer).text == "x"


def test_logprobs_leave_with_their_tokens() -> None:
    answer = _answer()
    entry = TokenLogprob(1, b"a", -0.5)
    answer.add(1, b"a", entry)
    chunk = answer.due(1.0)
    assert chunk is not None
    assert chunk.logprobs == (entry,)


def test_reasoning_is_counted_and_kept_apart() -> None:
    answer = _answer(splitter=ReasoningSplitter(open_at_start=True))
    for token, piece in enumerate((b"think", b"</think>", b"answer")):
        answer.add(token, piece, None)
    chunk = _finish(answer)
    assert (chunk.reasoning, chunk.text) == ("think", "answer")
    assert (answer.num_tokens, answer.num_reasoning) == (3, 2)


def test_stop_text_inside_the_reasoning_does_not_count() -> None:
    answer = _answer("END", splitter=ReasoningSplitter(open_at_start=True))
    answer.add(0, b"the END</think>of the END", None)
    chunk = _finish(answer)
    assert (chunk.reasoning, chunk.text) == ("the END", "of the ")


@given(st.lists(st.tuples(st.binary(max_size=4), st.floats(0, 0.1)), max_size=20))
def test_chunks_put_together_are_the_answer(pieces: list[tuple[bytes, float]]) -> None:
    answer, now, chunks = _answer("zz"), 0.0, []
    for token, (piece, pause) in enumerate(pieces):
        answer.add(token, piece, None)
        now += pause
        chunk = answer.due(now)
        chunks += [chunk] if chunk else []
    chunks.append(_finish(answer))
    whole = b"".join(piece for piece, _ in pieces).decode("utf-8", errors="replace")
    assert "".join(chunk.text for chunk in chunks) == whole.partition("zz")[0]
    assert [token for chunk in chunks for token in chunk.tokens] == list(range(len(pieces)))


def test_timings_of_an_answer() -> None:
    timings = Clocks(1.0, admitted=1.5, first_token=2.5, last_token=5.0).timings()
    assert timings == Timings(queue_s=0.5, prefill_s=1.0, first_token_s=1.5, decode_s=2.5)


def test_timings_of_what_never_started_are_zero() -> None:
    assert Clocks(3.0).timings() == Timings()
