"""A model's block of a comparison: shown as its answers grow, and left as one line."""

from __future__ import annotations

from typing import Any

from nbllm.core import Chunk, GenerateRequest, Message, SamplingParams
from nbllm.frames.asks import Ask
from nbllm.notebook.blocks import Blocks, ModelBlock


class Screen:
    """Remembers what was published, by display id."""

    def __init__(self) -> None:
        self.shown: dict[str, list[dict[str, str]]] = {}
        self.now = 0.0

    def publish(
        self, *, data: dict[str, str], metadata: dict[str, Any], transient: dict[str, str], update: bool
    ) -> None:
        before = self.shown.setdefault(transient["display_id"], [])
        assert update is bool(before), "the first is no update, and all others are"
        before.append(data)

    @property
    def last(self) -> dict[str, str]:
        return list(self.shown.values())[-1][-1]


def ask(text: str, temperature: float | None = None) -> Ask:
    return Ask(GenerateRequest(messages=(Message("user", text),), sampling=SamplingParams(temperature=temperature)))


def block(screen: Screen, total: int = 2) -> ModelBlock:
    return ModelBlock(screen.publish, "tiny", total, lambda: screen.now)


def test_answers_grow_under_their_prompts_and_one_line_is_left() -> None:
    screen, first = Screen(), ask("What is a *bee*?", 0.8)
    shown = block(screen)
    shown.grew(first, Chunk(text="An in"))
    shown.show()
    assert screen.last["text/plain"] == "tiny: 0 of 2"
    for part in ("An in", "&#42;bee&#42;", "temperature 0.8"):
        assert part in screen.last["text/markdown"]
    shown.grew(first, Chunk(text="sect", finish_reason="stop"))
    screen.now = 3.0
    shown.show()
    assert "1 of 2" in screen.last["text/markdown"]
    assert "An insect" in screen.last["text/markdown"]
    shown.finish()
    assert screen.last["text/plain"] == "tiny: 2 answers, 1 of them from the cache · 3.0 s"
    assert len(screen.shown) == 1


def test_what_a_model_says_cannot_attack() -> None:
    screen = Screen()
    shown = block(screen)
    shown.grew(ask("<script>a()</script>"), Chunk(text="<img src=x onerror=a()>"))
    shown.show()
    assert "<script" not in screen.last["text/markdown"]
    assert "<img" not in screen.last["text/markdown"]


def test_block_is_not_updated_for_every_piece() -> None:
    screen, asked = Screen(), ask("a")
    shown = block(screen)
    for _ in range(50):
        shown.grew(asked, Chunk(text="x"))
        shown.show()
    assert sum(map(len, screen.shown.values())) == 1


def test_of_many_answers_those_that_grow_are_shown() -> None:
    screen = Screen()
    shown = block(screen, 40)
    asks = [ask(f"question-{number}.") for number in range(40)]
    for one in asks[:-1]:
        shown.grew(one, Chunk(text="done", finish_reason="stop"))
    shown.grew(asks[-1], Chunk(text="growing"))
    shown.show()
    assert "growing" in screen.last["text/markdown"]
    assert screen.last["text/markdown"].count("question-") <= 6
    assert "39 of 40" in screen.last["text/markdown"]


def test_model_that_could_not_be_loaded_leaves_its_error() -> None:
    screen = Screen()
    blocks = Blocks(screen.publish)
    blocks.began("tiny", 3)
    blocks.ended("ModelLoadError: the file is cut short")
    assert screen.last["text/plain"] == "tiny: ModelLoadError: the file is cut short"


def test_each_model_has_a_block_of_its_own_and_cached_answers_leave_a_line() -> None:
    screen = Screen()
    blocks = Blocks(screen.publish)
    for name in ("one", "two"):
        blocks.began(name, 1)
        blocks.show()
        blocks.ended("")
        blocks.show()
    assert [shown[-1]["text/plain"] for shown in screen.shown.values()] == [
        "one: 1 answer, from the cache",
        "two: 1 answer, from the cache",
    ]
