"""The scores that have names: each measures one answer's text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nbllm.errors import ParameterError
from nbllm.frames.compare.extra import library
from nbllm.frames.compare.matching import holds, is_expected, written
from nbllm.frames.schemas import Shape

Answer = Mapping[str, Any]
"""A row of the results."""
Measure = Callable[[Answer, Any], float | bool | None]
"""Takes the row and the expected answer; None when there is nothing to measure."""
_ROUGE = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True, slots=True)
class Named:
    """How a named score is made.

    Attributes:
        argument: "gold" is the expected answer, which an argument gives for all rows alike; "needed" is one that
            only the argument can give; "none" takes none.
        make: gives the measure for an argument, None where there is none.
    """

    argument: Literal["gold", "needed", "none"]
    make: Callable[[Any], Measure]


def _against(compare: Callable[[Answer, Any], float | bool]) -> Callable[[Any], Measure]:
    def make(argument: Any) -> Measure:
        def measure(row: Answer, gold: Any) -> float | bool | None:
            wanted = gold if argument is None else argument
            return None if wanted is None else compare(row, wanted)

        return measure

    return make


def _against_text(compare: Callable[[str, str], float | bool]) -> Callable[[Any], Measure]:
    return _against(lambda row, wanted: compare(row["response"], written(wanted)))


def _of_text(compare: Callable[[str], float | bool]) -> Callable[[Any], Measure]:
    return lambda argument: lambda row, gold: compare(row["response"])


def _regex(pattern: Any) -> Measure:
    try:
        compiled = re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ParameterError("scorers", f"regex: {pattern!r:.100} is no regular expression: {error}") from error
    return lambda row, gold: compiled.search(row["response"]) is not None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _json_schema(schema: Any) -> Measure:
    """The whole standard, as the kept library has it; nothing is fetched for a `$ref`."""
    jsonschema = library("jsonschema", "json_schema")
    from referencing import Registry

    whole = _schema(schema)
    try:
        jsonschema.Draft202012Validator.check_schema(whole)
    except jsonschema.SchemaError as error:
        raise ParameterError("scorers", f"json_schema: {error.message:.200}") from error
    validator = jsonschema.Draft202012Validator(whole, registry=Registry())

    def measure(row: Answer, gold: Any) -> bool:
        try:
            return bool(validator.is_valid(json.loads(row["response"])))
        except (ValueError, RecursionError):
            return False

    return measure


def _schema(schema: Any) -> Any:
    """A schema may say more here than a model can be held to; the other forms are those of `response_format`."""
    if isinstance(schema, Mapping) and "json_schema" not in schema:
        return dict(schema)
    shape = Shape.of(schema)
    if shape is None:
        raise ParameterError("scorers", f"json_schema: {schema!r:.100} is no JSON Schema")
    return shape.json_schema


def _levenshtein(argument: Any) -> Measure:
    distance = library("rapidfuzz.distance", "levenshtein")
    similar = distance.Levenshtein.normalized_similarity
    return _against_text(lambda text, gold: float(similar(text.strip(), gold.strip())))(argument)


def _rouge(kind: str) -> Callable[[Any], Measure]:
    def make(argument: Any) -> Measure:
        scorer = library("rouge_score.rouge_scorer", kind).RougeScorer([kind])
        return _against_text(lambda text, gold: float(scorer.score(gold, text)[kind].fmeasure))(argument)

    return make


def _latency(argument: Any) -> Measure:
    return lambda row, gold: float(row["duration_ms"]) / 1e3


NAMED: Mapping[str, Named] = {
    "equals": Named("gold", _against(is_expected)),
    "contains": Named("gold", _against(lambda row, wanted: holds(row["response"], wanted))),
    "regex": Named("needed", _regex),
    "is_json": Named("none", _of_text(_is_json)),
    "json_schema": Named("needed", _json_schema),
    "levenshtein": Named("gold", _levenshtein),
    "rouge": Named("gold", _rouge("rougeL")),
    **{kind: Named("gold", _rouge(kind)) for kind in _ROUGE},
    "length": Named("none", _of_text(lambda text: float(len(text)))),
    "latency": Named("none", _latency),
}
SIMILARITY = "similarity"
"""A score too, but of vectors, which a model has to compute."""
