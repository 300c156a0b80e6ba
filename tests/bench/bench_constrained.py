"""Bar 9: speed of a JSON-Schema-constrained answer against a free one, and validity over random schemas and seeds."""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench import engine, sides

_NUM_SCHEMAS = 200
_TEXT = "Describe a book as JSON."
_BOOK = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 80},
        "pages": {"type": "integer", "minimum": 1, "maximum": 2000},
        "genres": {"type": "array", "items": {"type": "string", "maxLength": 20}, "minItems": 2, "maxItems": 4},
        "plot": {"type": "string", "minLength": 200, "maxLength": 400},
    },
    "required": ["title", "pages", "genres", "plot"],
    "additionalProperties": False,
}


def _speed(constrained: bool) -> dict[str, float]:
    model = engine.load()
    options: dict[str, Any] = {"temperature": 0.8, "max_tokens": 96}
    options |= {"response_format": _BOOK} if constrained else engine.endless(model, 96, temperature=0.8)
    model.chat(_TEXT, **{**options, "max_tokens": 4}, seed=1)
    made, started = 0, time.perf_counter()
    for seed in range(8):
        made += model.chat(_TEXT, seed=seed, **options).usage.completion_tokens
    return {"tokens_per_s": made / (time.perf_counter() - started)}


def _schema(chance: random.Random, depth: int = 0) -> dict[str, Any]:
    kinds = ["string", "integer", "number", "boolean", "enum"] + (["object", "array"] if depth < 2 else [])
    kind = "object" if depth == 0 else chance.choice(kinds)
    if kind == "enum":
        return {"enum": chance.sample(["red", "green", 7, None, True, 'a "quoted" one'], 3)}
    if kind == "object":
        names = chance.sample(["name", "age", "tags", "größe", "x y", "id", "note"], chance.randint(1, 3))
        parts = {name: _schema(chance, depth + 1) for name in names}
        required = chance.sample(names, chance.randint(0, len(names)))
        return {"type": "object", "properties": parts, "required": required, "additionalProperties": False}
    if kind == "array":
        return {"type": "array", "items": _schema(chance, depth + 1), "maxItems": chance.randint(1, 3)}
    return {"type": kind} | ({"maxLength": chance.randint(1, 30)} if kind == "string" else {})


def _valid() -> dict[str, float]:
    import jsonschema

    model = engine.load()
    counts = {"valid": 0, "cut": 0, "wrong": 0}
    for seed in range(_NUM_SCHEMAS):
        schema = _schema(random.Random(seed))
        answer = model.chat(
            f"Make up data number {seed}.", response_format=schema, seed=seed, temperature=1.0, max_tokens=120
        )
        if answer.finish_reason == "length":
            counts["cut"] += 1
            continue
        try:
            jsonschema.validate(json.loads(answer.text), schema)
            counts["valid"] += 1
        except (ValueError, jsonschema.ValidationError):
            counts["wrong"] += 1
    return {name: float(count) for name, count in counts.items()}


if __name__ == "__main__":
    sides.main(
        __file__,
        {"constrained": lambda: _speed(True), "free": lambda: _speed(False), "valid": _valid},
        ratios={"9 constrained/free (bar 0.85)": ("tokens_per_s", "constrained", "free")},
    )
