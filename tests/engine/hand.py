"""An engine over a toy model whose steps a test makes by hand: no thread, and a clock that moves when it is told to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from nbllm.core import Chunk, EmbedRequest, GenerateRequest, ModelInfo, Request
from nbllm.engine.driver import Driver
from nbllm.engine.interface import num_answers
from nbllm.engine.lane import Lane
from nbllm.engine.local import LocalEngine
from nbllm.engine.plan import Plan
from nbllm.engine.tickets import LaneTicket
from nbllm.testing import ToyBackend, ToyContext

STEP_S = 0.01


@dataclass(eq=False)
class Asked:
    """A request, and what came back so far, by answer."""

    request: Request
    ticket: LaneTicket
    chunks: dict[int, list[Chunk]]

    @property
    def is_done(self) -> bool:
        return all(chunks and chunks[-1].finish_reason for chunks in self.chunks.values())

    def tokens(self, index: int = 0) -> tuple[int, ...]:
        return tuple(token for chunk in self.chunks[index] for token in chunk.tokens)

    def text(self, index: int = 0) -> str:
        return "".join(chunk.text for chunk in self.chunks[index])

    def last(self, index: int = 0) -> Chunk:
        return self.chunks[index][-1]


class _HandDriver:
    """Knows the lanes and steps none of them."""

    threads = 1

    def __init__(self) -> None:
        self.lanes: list[Lane] = []

    def attach(self, lane: Lane, max_threads: int | None = None) -> None:
        self.lanes.append(lane)

    def wake(self) -> None:
        pass

    def detach(self, lane: Lane) -> None:
        lane.close()


@dataclass(eq=False)
class Hand:
    """The engine, and the hand that turns it."""

    backend: ToyBackend = field(default_factory=ToyBackend)
    context_length: int = 256
    max_sequences: int = 4
    kv_tokens: int | None = None
    store_bytes: int = 2**20
    now: float = 100.0

    def __post_init__(self) -> None:
        pool = self.kv_tokens or self.context_length * self.max_sequences
        plan = Plan(
            context_length=self.context_length,
            max_sequences=self.max_sequences,
            kv_tokens=pool,
            kv_type="f16",
            store_bytes=self.store_bytes,
            fixed_tokens=self.context_length,
            summary="toy",
        )
        self._driver = _HandDriver()
        model = ModelInfo(name="toy", path="toy.gguf", size_bytes=0)
        driver = cast("Driver", self._driver)
        self.engine = LocalEngine(self.backend, model, plan, driver, clock=lambda: self.now)

    @property
    def lane(self) -> Lane:
        """The one of free shapes."""
        return self._driver.lanes[0]

    @property
    def context(self) -> ToyContext:
        return self.backend.contexts[0]

    def ask(self, request: Request) -> Asked:
        chunks: dict[int, list[Chunk]] = {index: [] for index in range(num_answers(request))}
        ticket = self.engine.submit(request, lambda chunk: chunks[chunk.index].append(chunk))
        return Asked(request, ticket, chunks)

    def step(self) -> None:
        """One step of every lane, and the proof that its books are right."""
        for lane, context in zip(self._driver.lanes, self.backend.contexts, strict=True):
            if lane.has_work:
                lane.step(1, lambda: 1)
                self.now += STEP_S
            self.check(lane, context)

    def check(self, lane: Lane, context: ToyContext) -> None:
        lane.check_integrity()
        assert context.most_cells <= context.pool_capacity
        assert lane.load[2] == context.cells, "the books count other cells than the memory holds"
        held = {sequence.slot: sequence for sequence in lane._slots.holders()}
        for slot in range(context.num_slots):
            sequence = held.get(slot)
            wanted = [] if sequence is None else sequence.tokens[: sequence.num_evaluated]
            assert context.tokens(slot) == wanted, "a slot holds other tokens than its sequence"

    def finish(self, *asked: Asked, most_steps: int = 3000) -> None:
        """Step until the requests are answered; too many steps are starvation."""
        for _ in range(most_steps):
            if all(one.is_done for one in asked):
                return
            self.step()
        raise AssertionError(f"not answered after {most_steps} steps")

    def answer(self, request: Request) -> Asked:
        asked = self.ask(request)
        self.finish(asked)
        return asked

    @property
    def has_work(self) -> bool:
        return any(lane.has_work for lane in self._driver.lanes)


def alone(request: GenerateRequest | EmbedRequest, **options: int) -> Asked:
    """What the request gets from an engine of its own."""
    return Hand(**options).answer(request)  # type: ignore[arg-type]
