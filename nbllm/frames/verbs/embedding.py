"""`embed` and `search`: vectors of texts, and the rows nearest to one."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from nbllm.core import EmbedRequest
from nbllm.core.numbers import as_number
from nbllm.errors import ParameterError
from nbllm.frames.asks import Ask
from nbllm.frames.run import run
from nbllm.frames.templates import shown
from nbllm.frames.using import model_of
from nbllm.frames.verbs.computed import Computed
from nbllm.frames.verbs.plan import Plan
from nbllm.frames.verbs.result import carried_out, told
from nbllm.frames.verbs.settings import Settings
from nbllm.frames.verbs.source import Source, new_name

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


def embed(source: Source, col: Any, *, into: str = "embedding", **options: Any) -> Any:
    settings = Settings.of_numbers(options)
    return carried_out(source, _plan(source.column("col", col), new_name("into", into), settings), settings)


def search(source: Source, col: Any, query: str, k: int = 5, *, into: str = "similarity", **options: Any) -> Any:
    if not isinstance(query, str) or not query.strip():
        raise ParameterError("query", f"must be a text to look for, not {query!r:.100}")
    number = as_number(int, k)
    if number is None or number < 1:
        raise ParameterError("k", f"must be a whole number from 1 on, not {k!r:.100}")
    settings = Settings.of_numbers(options)
    plan = _plan(source.column("col", col), new_name("into", into), settings)
    return carried_out(source, plan, settings, partial(_nearest, query, int(number)))


def _plan(column: Hashable, into: str, settings: Settings) -> Plan:
    return Plan(
        uses=[column],
        requests=lambda row: [_request(shown(row[column]), settings)],
        columns={into: "object"},
        read=lambda values: values,
        base=into,
    )


def _request(text: str, settings: Settings) -> EmbedRequest:
    return EmbedRequest(texts=(text,), priority="batch", timeout_s=settings.options.timeout_s)


def _nearest(query: str, k: int, source: Source, plan: Plan, settings: Settings, computed: Computed) -> pd.DataFrame:
    """The rows that have a vector, the nearest first; equal ones in the frame's order."""
    import numpy as np
    import pandas as pd

    (into,) = plan.columns
    places = np.flatnonzero(computed.columns[into].notna().to_numpy())
    nearness = np.zeros(0)
    if len(places):
        vectors = np.stack([computed.columns[into].iloc[place] for place in places])
        nearness = vectors @ _vector(query, settings)
    order = np.argsort(-nearness, kind="stable")[:k]
    new = told(plan, settings, computed, is_quiet=True).iloc[places[order]]
    new[into] = pd.array(nearness[order], dtype="float64")
    chosen = replace(source, frame=source.frame.iloc[places[order]])
    return chosen.beside(new)


def _vector(query: str, settings: Settings) -> NDArray[np.float32]:
    options = replace(settings.run, on_error="raise", progress=False, limit=None, background=False)
    (outcome,) = run(model_of(settings.model), [Ask(_request(query, settings))], 1, options)
    if outcome is None:
        raise KeyboardInterrupt
    vector: NDArray[np.float32] = outcome.value  # type: ignore[assignment]  # an EmbedRequest's is a vector
    return vector
