"""Bar 2 of the tables: rows a second into 4 labels, with their probabilities against generated as constrained text."""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from nbllm.core import Chunk, Message
from nbllm.engine.interface import Ticket
from nbllm.session.choosing import choice_request
from nbllm.session.requests import Options
from tests.bench import engine, sides

_NUM_ROWS = 200
_LABELS = ("positive", "negative", "neutral", "mixed")
_RULES = "You sort what customers write. " + " ".join(
    f"Rule {number}: whoever writes about {topic} is taken at his word, and irony counts as what it means."
    for number, topic in enumerate(engine.TOPICS, 1)
)
_INSTRUCTION = f"{_RULES} Answer with one word, one of these: {', '.join(_LABELS)}."
_OPINIONS = ("lovely", "broken", "as described", "fine but late", "the worst")


def _rows(count: int) -> list[str]:
    return [
        f"The {engine.TOPICS[index % 10]} of order {index * 7 + 3} were {_OPINIONS[index % 5]}, as I told you."
        for index in range(count)
    ]


def _chosen() -> dict[str, float]:
    """As a table does it: every row is with the engine, and the answers come as they are ready."""
    model = engine.load()
    options = Options.of({"system": _INSTRUCTION})
    started = time.perf_counter()
    found: list[Chunk] = []
    tickets: list[Ticket] = [
        model.engine.submit(choice_request(row, _LABELS, options, "batch"), found.append) for row in _rows(_NUM_ROWS)
    ]
    while not all(ticket.is_done for ticket in tickets):
        time.sleep(0.002)
    duration_s = time.perf_counter() - started
    assert len(found) == _NUM_ROWS * len(_LABELS)
    assert all(chunk.finish_reason == "stop" for chunk in found)
    return {"rows_per_s": _NUM_ROWS / duration_s}


def _generated() -> dict[str, float]:
    model = engine.load()
    prompts = [[Message("system", _INSTRUCTION), Message("user", row)] for row in _rows(_NUM_ROWS)]
    started = time.perf_counter()
    answers = model.chat_many(prompts, choice=list(_LABELS), temperature=0)
    duration_s = time.perf_counter() - started
    assert all(answer.text in _LABELS for answer in answers)
    return {"rows_per_s": _NUM_ROWS / duration_s}


if __name__ == "__main__":
    sides.main(
        __file__,
        {"probabilities": _chosen, "constrained text": _generated},
        ratios={"probabilities / constrained text": ("rows_per_s", "probabilities", "constrained text")},
    )
