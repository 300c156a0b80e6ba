"""Lanes with adapters, stepped by hand: who gets a context when, and that nobody gets what another set computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import pytest

from nbllm.core import Adapter, Chunk, EmbedRequest, GenerateRequest, SamplingParams
from nbllm.engine.driver import Driver
from nbllm.engine.interface import iter_chunks
from nbllm.engine.lanes import MOST_OPEN
from nbllm.engine.local import LocalEngine
from nbllm.engine.plan import Plan
from nbllm.errors import EngineClosedError, EngineDeadError, InsufficientMemoryError, ModelNotFoundError
from nbllm.testing import EOS, IM_END, ToyBackend, ToyContext, toy_engine
from nbllm.testing.vocabulary import TOY_MODEL

_NO_END = {IM_END: -100.0, EOS: -100.0}


class _Steppable(Protocol):
    has_work: bool

    def step(self, threads: int, prefill_threads: Callable[[], int]) -> object: ...
    def close(self) -> None: ...
    def die(self, error: Exception) -> None: ...


class _Hand:
    """A driver that steps when it is told to, and an engine over a toy."""

    threads = 1

    def __init__(self, files: list[Path], free_bytes: int = 2**40, **options: Any) -> None:
        self.lanes: list[_Steppable] = []
        self.backend, self.now, self.free_bytes = ToyBackend(**options), 0.0, free_bytes
        self._adapters = [Adapter(str(path)) for path in files]
        plan = Plan(256, 4, 1024, "f16", 2**20, 256, "toy")
        self.engine = LocalEngine(
            self.backend,
            TOY_MODEL,
            plan,
            cast("Driver", self),
            clock=lambda: self.now,
            free_memory=lambda: self.free_bytes,
        )

    def attach(self, lane: _Steppable, max_threads: int | None = None) -> None:
        self.lanes.append(lane)

    def wake(self) -> None:
        pass

    def detach(self, lane: _Steppable) -> None:
        lane.close()
        if lane in self.lanes:
            self.lanes.remove(lane)

    def ask(self, *numbers: int, text: str = "hello", timeout: float | None = None, **sampling: Any) -> _Asked:
        params = SamplingParams(**{"temperature": 0, "max_tokens": 6, "logit_bias": _NO_END, **sampling})
        adapters = tuple(self._adapters[number] for number in numbers)
        return _Asked(self, GenerateRequest(text=text, sampling=params, adapters=adapters, timeout_s=timeout))

    def step(self) -> bool:
        """A step of each lane that has work; False if none has."""
        busy = [lane for lane in self.lanes if lane.has_work]
        for lane in busy:
            if lane in self.lanes:
                try:
                    lane.step(1, lambda: 1)
                except Exception as error:  # noqa: BLE001  # as the driver does
                    lane.die(error)
                    self.lanes.remove(lane)
        assert len(self.open) <= MOST_OPEN
        return bool(busy)

    def run(self) -> None:
        for _ in range(2000):
            if not self.step():
                return
        raise AssertionError("not at an end after 2,000 steps")

    @property
    def open(self) -> list[ToyContext]:
        """Contexts with adapters that are not freed."""
        return [context for context in self.backend.contexts if context.adapters and not context.is_closed]


class _Asked:
    def __init__(self, hand: _Hand, request: GenerateRequest) -> None:
        self.chunks: list[Chunk] = []
        self.ticket = hand.engine.submit(request, self.chunks.append)

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def reason(self) -> str | None:
        return self.chunks[-1].finish_reason if self.chunks else None

    @property
    def error(self) -> BaseException | None:
        return self.chunks[-1].error


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = [tmp_path / f"{name}.gguf" for name in "abcde"]
    for path in made:
        path.write_bytes(b"lora")
    return made


@pytest.fixture
def hand(files: list[Path]) -> Iterator[_Hand]:
    made = _Hand(files)
    yield made
    made.engine.close()
    assert made.backend.is_closed
    assert all(context.is_closed for context in made.backend.contexts)


def _answer(hand: _Hand, *numbers: int, **options: Any) -> str:
    asked = hand.ask(*numbers, **options)
    hand.run()
    return asked.text


def test_each_set_has_its_own_answers_and_a_plain_request_keeps_its(hand: _Hand) -> None:
    plain = _answer(hand)
    alone = [_answer(hand, 0), _answer(hand, 1), _answer(hand, 0, 1)]
    assert len({plain, *alone}) == 4
    together = [hand.ask(), hand.ask(0), hand.ask(1), hand.ask(1, 0), hand.ask()]
    hand.run()
    assert [asked.text for asked in together] == [plain, *alone, plain]


def test_sets_run_side_by_side(hand: _Hand) -> None:
    asked = [hand.ask(number, max_tokens=100) for number in range(3)]
    for _ in range(10):
        hand.step()
    assert all(len(one.ticket.jobs[0].sequence.tokens) > 8 for one in asked)
    assert hand.engine.stats().num_running == 3


def test_prefix_of_one_set_is_not_used_for_another(hand: _Hand) -> None:
    text = "a prompt that is long enough to be kept for the next one"
    for numbers in ((0,), (1,), ()):
        asked = hand.ask(*numbers, text=text)
        hand.run()
        assert asked.chunks[-1].usage is not None
        assert asked.chunks[-1].usage.cached_tokens == 0
    again = hand.ask(0, text=text)
    hand.run()
    assert again.chunks[-1].usage is not None
    assert again.chunks[-1].usage.cached_tokens > 20


def test_scale_0_needs_no_context(hand: _Hand, files: list[Path]) -> None:
    sampling = SamplingParams(temperature=0, max_tokens=6, logit_bias=_NO_END)
    asked = _Asked(hand, GenerateRequest(text="hello", adapters=(Adapter(str(files[0]), 0),), sampling=sampling))
    hand.run()
    assert asked.text == _answer(hand)
    assert hand.open == []


def test_idle_lane_that_was_used_longest_ago_makes_room(hand: _Hand, files: list[Path]) -> None:
    for number in (0, 1, 2, 0, 3):
        _answer(hand, number)
    assert {Path(context.adapters[0].path).stem for context in hand.open} == {"c", "a", "d"}


def test_set_waits_while_all_places_are_busy_and_is_answered_then(hand: _Hand) -> None:
    busy = [hand.ask(number, max_tokens=60) for number in range(3)]
    late = hand.ask(3)
    for _ in range(20):
        hand.step()
    assert late.reason is None
    assert hand.engine.stats().num_waiting == 1
    hand.run()
    assert late.reason == "length"
    assert [one.reason for one in busy] == ["length"] * 3


def test_set_that_is_always_busy_gives_way(hand: _Hand) -> None:
    late: _Asked | None = None
    for turn in range(400):
        for number in range(3):
            if turn % 5 == number:
                hand.ask(number, max_tokens=12)
        if turn == 20:
            late = hand.ask(3)
        hand.step()
        if late is not None and late.reason is not None:
            break
    assert late is not None
    assert late.reason == "length", "four busy sets, and one never got its turn"
    hand.run()


def test_waiting_request_can_be_cancelled_and_runs_out_of_time(hand: _Hand) -> None:
    busy = [hand.ask(number, max_tokens=60) for number in range(3)]
    cancelled, slow, last = hand.ask(3), hand.ask(4, timeout=5.0), hand.ask(3)
    hand.step()
    cancelled.ticket.cancel()
    hand.now = 6.0
    hand.step()
    assert (cancelled.reason, slow.reason, last.reason) == ("interrupted", "timeout", None)
    assert cancelled.ticket.is_done
    hand.run()
    assert last.reason == "length"
    assert {one.reason for one in busy} == {"length"}


def test_waiting_lane_whose_requests_were_all_cancelled_does_not_hold_others_up(hand: _Hand) -> None:
    for number in range(3):
        hand.ask(number, max_tokens=30)
    gone, next_one = hand.ask(3), hand.ask(4)
    hand.step()
    gone.ticket.cancel()
    hand.run()
    assert (gone.reason, next_one.reason) == ("interrupted", "length")


def test_deadline_of_a_request_that_was_cancelled_while_it_waited_harms_nobody(hand: _Hand) -> None:
    for number in range(3):
        hand.ask(number, max_tokens=20)
    gone, stays = hand.ask(3, timeout=5.0), hand.ask(3, max_tokens=40)
    hand.step()
    gone.ticket.cancel()
    while len(hand.open) < 3 or not any(Path(one.adapters[0].path).stem == "d" for one in hand.open):
        hand.step()
    hand.now = 6.0
    hand.run()
    assert (gone.reason, stays.reason) == ("interrupted", "length")


def test_running_request_is_cancelled(hand: _Hand) -> None:
    asked = hand.ask(0, max_tokens=200)
    for _ in range(5):
        hand.step()
    asked.ticket.cancel()
    hand.run()
    assert asked.reason == "interrupted"


def test_close_ends_what_runs_and_what_waits(hand: _Hand) -> None:
    asked = [hand.ask(number, max_tokens=200) for number in range(4)]
    for _ in range(3):
        hand.step()
    hand.engine.close()
    assert all(isinstance(one.error, EngineClosedError) for one in asked)
    with pytest.raises(EngineClosedError):
        hand.ask(0)


def test_missing_file_is_refused_and_nothing_is_taken_in(hand: _Hand, files: list[Path]) -> None:
    files[0].unlink()
    with pytest.raises(ModelNotFoundError):
        hand.ask(0)
    assert not any(lane.has_work for lane in hand.lanes)


def test_file_that_changes_is_another_set(hand: _Hand, files: list[Path]) -> None:
    text = "a prompt that is long enough to be kept for the next one"
    _answer(hand, 0, text=text)
    files[0].write_bytes(b"another lora")
    asked = hand.ask(0, text=text)
    hand.run()
    assert asked.chunks[-1].usage is not None
    assert asked.chunks[-1].usage.cached_tokens == 0


def test_file_that_vanishes_while_it_waits_ends_its_requests_alone(hand: _Hand, files: list[Path]) -> None:
    asked, other = hand.ask(0), hand.ask(1)
    files[0].unlink()
    hand.run()
    assert isinstance(asked.error, ModelNotFoundError)
    assert other.reason == "length"
    files[0].write_bytes(b"lora")
    assert _answer(hand, 0)


def test_no_memory_frees_idle_contexts_first_and_is_an_error_then(hand: _Hand) -> None:
    _answer(hand, 0)
    hand.free_bytes = 0
    asked = hand.ask(1)
    hand.run()
    assert isinstance(asked.error, InsufficientMemoryError)
    assert hand.open == []
    hand.free_bytes = 2**40
    assert _answer(hand, 1)


def test_lane_that_fails_leaves_plain_requests_and_later_ones_alone(hand: _Hand) -> None:
    plain, asked = hand.ask(max_tokens=30), hand.ask(0, max_tokens=30)
    for _ in range(3):
        hand.step()
    hand.open[0].during_decode = _broken
    hand.run()
    assert isinstance(asked.error, EngineDeadError)
    assert plain.reason == "length"
    assert _answer(hand, 0)


def _broken() -> None:
    raise OSError("broken")


def test_fixed_shapes_and_vectors_with_adapters(hand: _Hand, files: list[Path]) -> None:
    adapters = (Adapter(str(files[0])),)
    sampling = SamplingParams(temperature=0, max_tokens=6, logit_bias=_NO_END)
    fixed = [
        _Asked(hand, GenerateRequest(text="hello", reproducible=True, sampling=sampling, adapters=given))
        for given in (adapters, None)
    ]
    vectors: list[list[Chunk]] = [[], []]
    for chunks, given in zip(vectors, (adapters, None), strict=True):
        hand.engine.submit(EmbedRequest(texts=("hello",), adapters=given), chunks.append)
    hand.run()
    assert fixed[0].text != fixed[1].text
    assert fixed[0].text == _answer(hand, 0)
    assert vectors[0][-1].embedding is not None
    assert (vectors[0][-1].embedding != vectors[1][-1].embedding).any()


def test_counters_go_on_when_a_lane_is_freed(hand: _Hand) -> None:
    for number in range(5):
        _answer(hand, number)
    assert hand.engine.stats().completion_tokens == 30


def test_real_driver_makes_and_frees_the_contexts_on_its_thread(files: list[Path]) -> None:
    """The toy's contexts refuse a second thread."""
    backend = ToyBackend()
    engine = toy_engine(backend)
    sampling = SamplingParams(temperature=0, max_tokens=6, logit_bias=_NO_END)
    for path in files:
        request = GenerateRequest(text="hello", sampling=sampling, adapters=(Adapter(str(path)),))
        assert "".join(chunk.text for chunk in iter_chunks(engine, request))
    assert sum(not context.is_closed for context in backend.contexts) == 1 + MOST_OPEN
    engine.close()
    assert backend.is_closed
