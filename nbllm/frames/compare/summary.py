"""What a comparison comes to: means, how sure they are, and whether models differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from nbllm.core.numbers import as_number
from nbllm.errors import ParameterError
from nbllm.frames.compare.columns import param_columns, require_results, score_columns
from nbllm.frames.compare.golden import agreement, gold_column

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

_ITEM = ["prompt_idx", "case"]
_MEASURES = ("output_tokens", "duration_ms", "tokens_per_s")
_BLOCK = 4_000_000
"""Numbers drawn at a time, so that memory stays small for many items."""


class Interval(NamedTuple):
    """A mean and the bounds of its interval."""

    mean: float
    low: float
    high: float


_NONE = Interval(float("nan"), float("nan"), float("nan"))


def summary(
    frame: pd.DataFrame,
    by: str | Sequence[str] = ("model",),
    *,
    baseline: str | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> pd.DataFrame:
    """One row a group: count, errors, and of each score its mean and standard error, of speeds their means.

    Where answers were expected there are `accuracy` and `f1` too. They ask whether an answer as a whole is the expected
    one, as the score `equals` does, whatever other scores there are: one that `contains` likes may be wrong for them.

    With several models each score also has `_diff`, the mean difference to the baseline on the same prompt, case,
    parameters and repeat, and `_low` and `_high`, its 95 % interval by paired bootstrap. Repeats and parameters of one
    prompt and case are no independent observations: standard errors and intervals are over prompts and cases.

    Args:
        by: columns to group by; without "model" nothing is compared.
        baseline: the model that the others are compared with, the first one if not given.

    Raises:
        ParameterError: it is no comparison, or a column or the baseline is not there.
    """
    import pandas as pd

    require_results(frame)
    names = [by] if isinstance(by, str) else list(by)
    _check(frame, names, resamples)
    keyed = frame.astype({"model": "str", "prompt": "str"})
    groups = keyed.groupby(names, sort=False, observed=True, dropna=False)
    columns = {"count": groups.size(), "errors": groups["error"].count() if "error" in frame else 0}
    table = pd.DataFrame(columns)
    if gold_column(frame) is not None and len(frame):
        table = table.join(agreement(keyed, names))
    for score in score_columns(frame):
        table[score] = groups[score].mean()
        table[f"{score}_se"] = _standard_errors(keyed, names, score)
        if "model" in names:
            table = table.join(_differences(keyed, names, score, baseline, seed, resamples))
    for measure in _MEASURES:
        if measure in frame.columns:
            table[measure] = groups[measure].mean().astype("float64")
    return table


def differences(frame: pd.DataFrame, *, seed: int = 0, resamples: int = 2000) -> pd.DataFrame:
    """Each two models, score by score: the mean of `a` minus `b` over what both answered, and its 95 % interval.

    Returns:
        Columns: score, a, b, items (prompts and cases that both have), diff, low, high.

    Raises:
        ParameterError: it is no comparison.
    """
    import pandas as pd

    require_results(frame)
    _check(frame, ["model"], resamples)
    keyed = frame.astype({"model": "str", "prompt": "str"})
    models = list(dict.fromkeys(keyed["model"]))
    rows = []
    for score in score_columns(frame):
        for number, a in enumerate(models):
            for b in models[number + 1 :]:
                items = _item_differences(keyed, score, a, b)
                rows.append((score, a, b, len(items), *bootstrap_interval(items, seed, resamples)))
    return pd.DataFrame(rows, columns=["score", "a", "b", "items", "diff", "low", "high"])


def bootstrap_interval(items: NDArray[np.float64], seed: int, resamples: int) -> Interval:
    """The mean of the items, and the 95 % interval of the means of samples drawn from them with replacement."""
    import numpy as np

    if not len(items):
        return _NONE
    rng = np.random.default_rng(seed)
    means = []
    block = max(1, _BLOCK // len(items))
    for start in range(0, resamples, block):
        drawn = rng.integers(0, len(items), (min(block, resamples - start), len(items)))
        means.append(items[drawn].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return Interval(float(items.mean()), float(low), float(high))


def _check(frame: pd.DataFrame, by: Sequence[str], resamples: object) -> None:
    for name in by:
        if name not in frame.columns:
            raise ParameterError("by", f"there is no column {name!r:.100}; by is a list such as ['model', 'prompt']")
    if not by:
        raise ParameterError("by", "is empty: name at least one column, such as 'model'")
    number = as_number(int, resamples)
    if number is None or not 1 <= number <= 1_000_000:
        raise ParameterError("resamples", f"must be a whole number from 1 to 1000000, not {resamples!r:.100}")


def _standard_errors(frame: pd.DataFrame, by: Sequence[str], score: str) -> pd.Series[float]:
    keys = list(dict.fromkeys([*by, *_ITEM]))
    items = frame.groupby(keys, sort=False, observed=True, dropna=False)[score].mean()
    return items.groupby(level=list(by), sort=False, dropna=False).sem()


def _differences(
    frame: pd.DataFrame, by: Sequence[str], score: str, baseline: str | None, seed: int, resamples: int
) -> pd.DataFrame:
    """Of each group's model to the baseline in the same other groups."""
    import pandas as pd

    models = list(dict.fromkeys(frame["model"]))
    first = _baseline(models, baseline)
    groups = frame.groupby(list(by), sort=False, observed=True, dropna=False)
    if len(models) < 2:
        return pd.DataFrame(index=groups.size().index)
    rows = []
    for key, _ in groups:
        values = dict(zip(by, key, strict=True))
        same = _where(frame, {name: value for name, value in values.items() if name != "model"})
        items = _item_differences(same, score, values["model"], first)
        is_first = values["model"] == first
        rows.append(_NONE if is_first else bootstrap_interval(items, seed, resamples))
    names = [f"{score}_diff", f"{score}_low", f"{score}_high"]
    return pd.DataFrame(rows, columns=names, index=groups.size().index)


def _baseline(models: Sequence[str], baseline: str | None) -> str:
    if baseline is None:
        return models[0] if models else ""
    if baseline not in models:
        raise ParameterError("baseline", f"there is no model {baseline!r:.100}; the models are {', '.join(models)}")
    return baseline


def _where(frame: pd.DataFrame, values: dict[str, object]) -> pd.DataFrame:
    for name, value in values.items():
        frame = frame[frame[name].isna()] if value != value else frame[frame[name] == value]
    return frame


def _item_differences(frame: pd.DataFrame, score: str, a: str, b: str) -> NDArray[np.float64]:
    """One number for each prompt and case: the mean difference over what both have of it."""
    keys = [*_ITEM, "repeat", *param_columns(frame)]
    one, other = (frame[frame["model"] == name][[*keys, score]] for name in (a, b))
    paired = one.merge(other, on=keys, suffixes=("_a", "_b"))
    paired["diff"] = paired[f"{score}_a"] - paired[f"{score}_b"]
    items: NDArray[np.float64] = paired.groupby(_ITEM, sort=False)["diff"].mean().dropna().to_numpy("float64")
    return items
