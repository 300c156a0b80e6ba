"""How well answers agree with what was expected: accuracy, F1, and which was taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nbllm.errors import ParameterError
from nbllm.frames.compare.columns import ATTRS, require_results
from nbllm.frames.templates import is_null

if TYPE_CHECKING:
    import pandas as pd

OTHER = "(other)"
"""Answers that are none of the expected ones."""


def gold_column(frame: pd.DataFrame, expected: str | None = None) -> str | None:
    """The column of expected answers: the one named, or the one that the comparison was given.

    Raises:
        ParameterError: there is no column of that name.
    """
    name = expected or frame.attrs.get(ATTRS, {}).get("expected")
    if name is None:
        return None
    for column in (name, f"var_{name}"):
        if column in frame.columns:
            return str(column)
    raise ParameterError("expected", f"there is no column {name!r:.100} in the frame")


def gold_of_rows(frame: pd.DataFrame, expected: str | None = None) -> list[Any]:
    """The expected answer of each row, None where there is none."""
    column = gold_column(frame, expected)
    return [None] * len(frame) if column is None else [None if is_null(want) else want for want in frame[column]]


def confusion(frame: pd.DataFrame, expected: str | None = None) -> pd.DataFrame:
    """How often each expected answer (rows) was answered with each (columns); of several models, one under the other.

    Args:
        expected: the column of expected answers; None is the one that the comparison was given.

    Raises:
        ParameterError: it is no comparison, or nothing was expected.
    """
    import pandas as pd

    labels = _labels(frame, expected)
    known = sorted(labels["gold"].unique())
    columns = [*known, OTHER] if (~labels["said"].isin(known)).any() else known
    labels["said"] = labels["said"].where(labels["said"].isin(known), OTHER)
    models = list(dict.fromkeys(labels["model"]))
    tables = {
        model: pd.crosstab(part["gold"], part["said"]).reindex(index=known, columns=columns, fill_value=0)
        for model, part in labels.groupby("model", sort=False)
    }
    table = pd.concat([tables[model] for model in models], keys=models) if len(models) != 1 else tables[models[0]]
    table.index.names = ["model", "expected"] if len(models) != 1 else ["expected"]
    return table.rename_axis(columns="answered")


def agreement(frame: pd.DataFrame, by: Sequence[str] = ("model",), expected: str | None = None) -> pd.DataFrame:
    """Accuracy and macro F1 of each group. F1 is the mean over the labels that are expected there; other answers
    count as missed, and rows without an answer, such as failed ones, do not count.

    Raises:
        ParameterError: it is no comparison, or nothing was expected.
    """
    import pandas as pd

    labels = _labels(frame, expected, by)
    groups = labels.groupby(list(by), sort=False, observed=True)
    rows = [(*key, (part["gold"] == part["said"]).mean(), _macro_f1(part)) for key, part in groups]
    return pd.DataFrame(rows, columns=[*by, "accuracy", "f1"]).set_index(list(by))


def _labels(frame: pd.DataFrame, expected: str | None, by: Sequence[str] = ("model",)) -> pd.DataFrame:
    """What was expected and what was said, as texts without the white space around them."""
    require_results(frame)
    column = gold_column(frame, expected)
    if column is None:
        raise ParameterError("expected", "nothing was expected in this comparison: name the column of answers")
    answered = frame[frame["response"].notna() & frame[column].notna()]
    labels = answered[list(dict.fromkeys([*by, "model"]))].astype({"model": "str"})
    return labels.assign(
        gold=[str(value).strip() for value in answered[column]], said=answered["response"].str.strip().astype("str")
    )


def _macro_f1(part: pd.DataFrame) -> float:
    scores = []
    for label in part["gold"].unique():
        wanted, said = part["gold"] == label, part["said"] == label
        scores.append(2 * float((wanted & said).sum()) / float(wanted.sum() + said.sum()))
    return sum(scores) / len(scores)
