"""`judge` and `prefer`: how good an answer is, and which of two is better."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from nbllm.errors import ParameterError
from nbllm.frames.verbs.plan import Plan, Row, Shots
from nbllm.frames.verbs.result import carried_out
from nbllm.frames.verbs.scale import Scale, mark_plan
from nbllm.frames.verbs.settings import Settings
from nbllm.frames.verbs.source import Source, new_name
from nbllm.frames.verbs.statement import Statement
from nbllm.frames.verbs.texts import about
from nbllm.session.response import Response

TIE = "tie"
_FIRST, _SECOND = "A", "B"
_RUBRIC = "The answer is correct, complete and clear."


def judge(
    source: Source,
    answer: Any,
    *,
    question: Any = None,
    reference: Any = None,
    rubric: str = _RUBRIC,
    low: int = 1,
    high: int = 5,
    into: str = "judge_score",
    **options: Any,
) -> Any:
    into, scale = new_name("into", into), Scale(low, high)
    statement = Statement.of(source, "rubric", rubric, needs_column=False)
    titled = {"Question": question, "Reference answer": reference, "Answer": answer}
    given = {name: column for name, column in titled.items() if column is not None}
    parts = {name: source.column(name.split()[0].lower(), column) for name, column in given.items()}
    others = [] if source.is_series else statement.uses
    against = "the reference answer and " if reference is not None else ""
    instruction = (
        f"Rate the answer below against {against}the rubric, on a scale {scale.wording}. Answer with the number only.\n"
        f"Rubric: {statement.wording}"
    )

    def blocks(row: Row) -> Mapping[str, Any]:
        return {**_blocks(others, row), **{title: row[column] for title, column in parts.items()}}

    uses = list(dict.fromkeys([*others, *parts.values()]))
    return carried_out(source, *mark_plan(source, scale, options, instruction, uses, blocks, into))


def prefer(
    source: Source,
    a: Any,
    b: Any,
    criteria: str = _RUBRIC,
    *,
    question: Any = None,
    swap: bool = True,
    into: str = "preferred",
    **options: Any,
) -> Any:
    into, a, b = new_name("into", into), source.column("a", a), source.column("b", b)
    if a == b:
        raise ParameterError("b", f"is the same column as a, {a!r:.100}; name the other one")
    if not isinstance(swap, bool):
        raise ParameterError("swap", f"must be True or False, not {swap!r:.100}")
    statement = Statement.of(source, "criteria", criteria, needs_column=False)
    asked = [] if question is None else [source.column("question", question)]
    settings = Settings.of(options, choice=[_FIRST, _SECOND])
    instruction = f"Which answer is better, A or B? Answer with the letter only.\nWhat counts: {statement.wording}"

    def text(row: Row, first: Hashable = a, second: Hashable = b) -> str:
        head = {**_blocks(statement.uses, row), **({} if question is None else {"Question": row[question]})}
        return about(instruction, {**head, "Answer A": row[first], "Answer B": row[second]})

    uses = list(dict.fromkeys([*statement.uses, *asked, a, b]))
    shots = Shots.of(settings, uses, text, [into], lambda row: _letter(row[into], a, b))
    plan = Plan(
        uses=uses,
        requests=lambda row: [shots.ask(text(row)), *([shots.ask(text(row, b, a))] if swap else [])],
        columns={into: "str"},
        read=lambda values: [_better(values, str(a), str(b))],
        base=into,
        num_requests=2 if swap else 1,
    )
    return carried_out(source, plan, settings)


def _blocks(columns: Sequence[Hashable], row: Row) -> dict[str, Any]:
    return {str(column): row[column] for column in columns}


def _better(answers: Sequence[Response], a: str, b: str) -> str:
    """The column that won in both orders; a model that goes by the place wins none."""
    winners = {(a if answer.text == _FIRST else b) for answer in answers[:1]}
    winners |= {(b if answer.text == _FIRST else a) for answer in answers[1:]}
    return winners.pop() if len(winners) == 1 else TIE


def _letter(value: Any, a: Hashable, b: Hashable) -> str:
    if value not in (a, b):
        raise ParameterError("examples", f"must have {a!r} or {b!r}, the better one, in each row, not {value!r:.100}")
    return _FIRST if value == a else _SECOND
