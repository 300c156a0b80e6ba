"""`classify`: one label a row, or all that fit, or how likely each is."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from nbllm.errors import ParameterError
from nbllm.frames.verbs.mapping import as_json
from nbllm.frames.verbs.result import carried_out
from nbllm.frames.verbs.settings import Settings
from nbllm.frames.verbs.source import Source, new_name
from nbllm.frames.verbs.texts import text_plan
from nbllm.session.choosing import Choices

_INTO = "label"
_PROBABILITY = "p_"
_FEWEST = 2
Labels = Sequence[str] | Mapping[str, str]


def classify(
    source: Source,
    col: Any,
    labels: Labels,
    *,
    multi: bool = False,
    proba: bool = False,
    into: str = _INTO,
    **options: Any,
) -> Any:
    column, into = source.column("col", col), new_name("into", into)
    names = _checked(labels)
    if multi and proba:
        raise ParameterError("proba", "is of one label a row; leave out multi, or ask about each label with filter")
    kind = _ALL_THAT_FIT if multi else _PROBABILITIES if proba else _ONE
    settings = Settings.of(options, **kind.constraint(names))
    plan = text_plan(
        source,
        settings,
        column,
        kind.instruction + _listed(names, labels),
        kind.columns(names, into),
        partial(kind.read, names),
        lambda row: kind.answer(names, row[into]),
        base=into,
        is_table=proba,
        choices=names if proba else None,
    )
    return carried_out(source, plan, settings)


@dataclass(frozen=True, slots=True)
class _Kind:
    """One of the three forms that the answer can have; each function is given the labels first."""

    instruction: str
    constraint: Callable[[list[str]], Mapping[str, Any]]
    columns: Callable[[list[str], str], Mapping[Hashable, str]]
    read: Callable[[list[str], Any], Sequence[Any]]
    answer: Callable[[list[str], Any], str]


def _checked(labels: Any) -> list[str]:
    """The labels' names.

    Raises:
        ParameterError: they are no labels, or fewer than two.
    """
    if isinstance(labels, set | frozenset):
        raise ParameterError("labels", "a set's order differs from one process to the next; write sorted(labels)")
    is_list = isinstance(labels, Iterable) and not isinstance(labels, str | bytes)
    names = list(labels) if is_list else []
    if len(names) < _FEWEST or not all(isinstance(name, str) and name.strip() for name in names):
        problem = "must be a list of at least two texts, or a dict of texts and what they mean"
        other = next((name for name in names if not isinstance(name, str)), None)
        if other is not None:
            problem += f"; write {str(other)!r:.60} for {other!r:.60}"
        raise ParameterError("labels", f"{problem}, not {labels!r:.100}")
    for name in names:
        if names.count(name) > 1:
            raise ParameterError("labels", f"{name!r:.100} is there twice")
    return names


def _listed(names: Sequence[str], labels: Labels) -> str:
    if isinstance(labels, Mapping):
        return "\n" + "\n".join(f"- {name}: {labels[name]}" for name in names)
    return " " + ", ".join(names) + "."


def _subset(names: list[str]) -> Mapping[str, Any]:
    """llguidance has no `uniqueItems`: what is there twice is counted once."""
    return {"response_format": {"type": "array", "items": {"enum": names}, "maxItems": len(names)}}


def _of_chances(names: Sequence[str], into: str) -> list[str]:
    """The columns of the probabilities. A second question of the same labels, which has a name, has its own."""
    beginning = _PROBABILITY if into == _INTO else f"{into}_{_PROBABILITY}"
    return [f"{beginning}{name}" for name in names]


def _chances(names: Sequence[str], logprobs: Sequence[float]) -> list[Any]:
    """The likeliest label, and of each its probability among them."""
    choices = Choices.of(dict(zip(names, logprobs, strict=True)))
    return [choices.best, *choices.probabilities.values()]


def _known(names: Sequence[str], label: Any) -> str:
    if label not in names:
        raise ParameterError("examples", f"{label!r:.100} is none of the labels {', '.join(names)}")
    return str(label)


def _known_list(names: Sequence[str], labels: Any) -> str:
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise ParameterError("examples", f"must have a list of labels in each row, not {labels!r:.100}")
    return as_json([_known(names, label) for label in labels])


_ONE = _Kind(
    instruction="Classify the text below. Answer with one of these labels and nothing else:",
    constraint=lambda names: {"choice": names},
    columns=lambda names, into: {into: "str"},
    read=lambda names, response: [response.text],
    answer=_known,
)
_PROBABILITIES = replace(
    _ONE,
    columns=lambda names, into: {into: "str", **dict.fromkeys(_of_chances(names, into), "float64")},
    read=_chances,
)
_ALL_THAT_FIT = _Kind(
    instruction="Which of these labels fit the text below? Answer with a JSON list of those that do. The labels:",
    constraint=_subset,
    columns=lambda names, into: {into: "object"},
    read=lambda names, response: [list(dict.fromkeys(response.parsed))],
    answer=_known_list,
)
