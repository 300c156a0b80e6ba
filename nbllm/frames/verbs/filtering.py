"""`filter`: the rows of which something is true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbllm.errors import ParameterError
from nbllm.frames.verbs.computed import Computed
from nbllm.frames.verbs.plan import Plan, Row, Shots
from nbllm.frames.verbs.result import carried_out, told
from nbllm.frames.verbs.settings import Settings
from nbllm.frames.verbs.source import Source, new_name
from nbllm.frames.verbs.statement import Statement
from nbllm.frames.verbs.texts import about

if TYPE_CHECKING:
    import pandas as pd

_YES, _NO = "yes", "no"


def filter_rows(source: Source, condition: str, *, into: str = "filter", **options: Any) -> Any:
    into = new_name("into", into)
    statement = Statement.of(source, "condition", condition)
    settings = Settings.of(options, choice=[_YES, _NO])
    instruction = f"Is this statement true? Answer yes or no.\nStatement: {statement.wording}"

    def text(row: Row) -> str:
        return about(instruction, statement.blocks(row))

    shots = Shots.of(settings, statement.uses, text, [into], lambda row: _written(row[into]))
    plan = Plan(
        uses=statement.uses,
        requests=lambda row: [shots.ask(text(row))],
        columns={into: "boolean"},
        read=lambda values: [values[0].text == _YES],
        base=into,
    )
    return carried_out(source, plan, settings, _true_rows)


def _true_rows(source: Source, plan: Plan, settings: Settings, computed: Computed) -> pd.DataFrame | pd.Series:
    """Rows that failed stay, with their error beside them, unless they are to be skipped: nobody knows their answer."""
    (into,) = plan.columns
    kept = computed.columns[into].fillna(False).to_numpy(bool)
    if settings.run.on_error == "keep":
        kept = kept | computed.has_failed
    new = told(plan, settings, computed).drop(columns=into)
    result = source.beside(new)[kept]
    return result.iloc[:, 0].rename(source.name) if source.is_series and len(result.columns) == 1 else result


def _written(value: Any) -> str:
    if value in (_YES, _NO):
        return str(value)
    if value in (True, False):
        return _YES if value else _NO
    raise ParameterError("examples", f"must have True or False in each row, not {value!r:.100}")
