"""How well answers agree with what was expected: accuracy, F1, and which was taken for which.

A whole answer is or is not the expected one, by value, as `nbllm.frames.compare.matching` says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nbllm.errors import ParameterError
from nbllm.frames.compare.columns import ATTRS, require_results
from nbllm.frames.compare.matching import meanings, readings, written
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

    Labels are as the answers have them: `1` where 1.0 was expected and 1 was said.

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
    """Accuracy and macro F1 of each group.

    Accuracy is the share of answers that as a whole are the expected one, as the score `equals` has it; one that only
    contains it is wrong here. F1 is the mean over the labels that are expected there; other answers count as missed.
    Rows without an answer, such as failed ones, do not count.

    Raises:
        ParameterError: it is no comparison, or nothing was expected.
    """
    import pandas as pd

    labels = _labels(frame, expected, by)
    groups = labels.groupby(list(by), sort=False, observed=True)
    rows = [(*key, (part["gold"] == part["said"]).mean(), _macro_f1(part)) for key, part in groups]
    return pd.DataFrame(rows, columns=[*by, "accuracy", "f1"]).set_index(list(by))


def _labels(frame: pd.DataFrame, expected: str | None, by: Sequence[str] = ("model",)) -> pd.DataFrame:
    """The label of what was expected, and of what was said; the latter is missing where it is none that is expected."""
    require_results(frame)
    column = gold_column(frame, expected)
    if column is None:
        raise ParameterError("expected", "nothing was expected in this comparison: name the column of answers")
    answered = frame[frame["response"].notna() & frame[column].notna()]
    gold, texts = answered[column].tolist(), answered["response"].tolist()
    parsed = answered["parsed"].tolist() if "parsed" in answered else [None] * len(answered)
    wanted = [written(want).strip() for want in gold]
    label_of = {key: label for want, label in zip(gold[::-1], wanted[::-1], strict=True) for key in meanings(want)}
    said = []
    for text, value, want, label in zip(texts, parsed, gold, wanted, strict=True):
        keys = readings(text, value)
        is_right = not set(keys).isdisjoint(meanings(want))
        said.append(label if is_right else next((label_of[key] for key in keys if key in label_of), None))
    names = _names(gold, wanted, said, texts)
    labels = answered[list(dict.fromkeys([*by, "model"]))].astype({"model": "str"})
    return labels.assign(
        gold=[names[label] for label in wanted], said=[None if label is None else names[label] for label in said]
    )


def _names(
    gold: Sequence[Any], wanted: Sequence[str], said: Sequence[str | None], texts: Sequence[str]
) -> dict[str, str]:
    """How each label is shown: as most of the answers that have it are written, when no other label is called that."""
    names = {label: label for label in wanted}
    typed = {label for want, label in zip(gold, wanted, strict=True) if not isinstance(want, str)}
    spellings = Counter((label, text.strip()) for label, text in zip(said, texts, strict=True) if label in typed)
    taken = set(names)
    for (label, spelling), _ in spellings.most_common():
        if label in typed and (spelling == label or spelling not in taken):
            typed.remove(label)
            taken.add(spelling)
            names[label] = spelling
    return names


def _macro_f1(part: pd.DataFrame) -> float:
    scores = []
    for label in part["gold"].unique():
        wanted, said = part["gold"] == label, part["said"] == label
        scores.append(2 * float((wanted & said).sum()) / float(wanted.sum() + said.sum()))
    return sum(scores) / len(scores)
