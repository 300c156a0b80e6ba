from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.frames.describe import MAX_CHARACTERS, describe, is_table


def words(text: str) -> int:
    return len(text.split())


def quarters(text: str) -> int:
    return len(text) // 4


def described(frame: Any, spec: str = "", budget: int = 10_000) -> str:
    return describe(frame, spec=spec, budget=budget, count=words)


def line_of(text: str, label: str) -> list[str]:
    """The cells of a column's line: dtype, missing, values."""
    found = next(line for line in text.splitlines() if line.startswith(f"| {label} |"))
    return [cell.strip() for cell in found.strip("|").split("|")][1:]


def rows_of(text: str) -> list[str]:
    """The rows at the end, without the header."""
    return text.rpartition("\n\n")[2].splitlines()[2:]


def test_whole_description() -> None:
    frame = pd.DataFrame({"age": [18, 30, 80], "city": ["Berlin", None, "Berlin"]})
    assert described(frame) == (
        "DataFrame, 3 rows, 2 columns\n"
        "\n"
        "| column | dtype | missing | values |\n"
        "| --- | --- | --- | --- |\n"
        "| age | int64 | 0% | min 18, mean 42.6667, max 80 |\n"
        "| city | str | 33.3% | always Berlin |\n"
        "\n"
        "All rows:\n"
        "\n"
        "|  | age | city |\n"
        "| --- | --- | --- |\n"
        "| 0 | 18 | Berlin |\n"
        "| 1 | 30 | nan |\n"
        "| 2 | 80 | Berlin |"
    )


DAYS = pd.date_range("2026-01-01", periods=3)


@pytest.mark.parametrize(
    ("values", "facts"),
    [
        pytest.param([1, 2, 6], ["int64", "0%", "min 1, mean 3, max 6"], id="int"),
        pytest.param([5, 5], ["int64", "0%", "always 5"], id="constant"),
        pytest.param([0.1 + 0.2, np.nan], ["float64", "50%", "always 0.3"], id="float"),
        pytest.param([12345678.9, 0.0], ["float64", "0%", "min 0, mean 6172839.45, max 12345678.90"], id="large float"),
        pytest.param([np.inf, -np.inf], ["float64", "0%", "min -inf, mean nan, max inf"], id="infinite"),
        pytest.param([np.nan, np.nan], ["float64", "100%", ""], id="all missing"),
        pytest.param([True, False, True, True], ["bool", "0%", "75% True"], id="bool"),
        pytest.param(pd.array([True, None], dtype="boolean"), ["boolean", "50%", "100% True"], id="nullable bool"),
        pytest.param(pd.array([None, None], dtype="boolean"), ["boolean", "100%", ""], id="no bool"),
        pytest.param(pd.array([1, None, 3], dtype="Int64"), ["Int64", "33.3%", "min 1, mean 2, max 3"], id="nullable"),
        pytest.param(pd.array([None], dtype="Int64"), ["Int64", "100%", ""], id="nullable all missing"),
        pytest.param(["a", "b", "a", "a"], ["str", "0%", "2 distinct; a 75%, b 25%"], id="text"),
        pytest.param(["a", "b"], ["str", "0%", "2 distinct"], id="all distinct"),
        pytest.param(["a|b\nc"] * 2, ["str", "0%", r"always a\|b\nc"], id="mark-up"),
        pytest.param(["x" * 99] * 2, ["str", "0%", "always " + "x" * 29 + "…"], id="long text"),
        pytest.param(
            pd.Categorical(["a", "b", "a"], ["a", "b", "c"]),
            ["category", "0%", "2 distinct; a 66.7%, b 33.3%"],
            id="category",
        ),
        pytest.param(pd.Categorical([True, False]), ["category", "0%", "2 distinct"], id="category of bools"),
        pytest.param(DAYS, ["datetime64[us]", "0%", "2026-01-01 to 2026-01-03"], id="dates"),
        pytest.param(
            DAYS.tz_localize("UTC"),
            ["datetime64[us, UTC]", "0%", "2026-01-01 00:00:00+00:00 to 2026-01-03 00:00:00+00:00"],
            id="dates with a zone",
        ),
        pytest.param([pd.NaT, DAYS[0]], ["datetime64[us]", "50%", "always 2026-01-01"], id="missing date"),
        pytest.param(DAYS - DAYS[0], ["timedelta64[us]", "0%", "0 days to 2 days"], id="durations"),
        pytest.param(DAYS.to_period("M"), ["period[M]", "0%", "always 2026-01"], id="periods"),
        pytest.param([[1], [2]], ["object", "0%", "values such as [1]"], id="lists"),
        pytest.param([1j, 2j], ["complex128", "0%", "2 distinct"], id="complex"),
        pytest.param([1, "a", None, 1], ["object", "25%", "2 distinct; 1 66.7%, a 33.3%"], id="mixed"),
        pytest.param(pd.arrays.SparseArray([0, 0, 3]), ["Sparse[int64, 0]", "0%", "min 0, mean 1, max 3"], id="sparse"),
        pytest.param([0] * 9999 + [None], ["float64", "<0.1%", "always 0"], id="hardly any missing"),
        pytest.param([None] * 9999 + [0], ["float64", ">99.9%", "always 0"], id="hardly any there"),
    ],
)
def test_line_of_a_column(values: Any, facts: list[str]) -> None:
    line = described(pd.DataFrame({"c": values}), "head=0").splitlines()[-1]
    assert line == f"| c | {' | '.join(facts)} |"


def test_column_that_cannot_be_compared_has_no_statistics() -> None:
    class Odd:
        def __hash__(self) -> int:
            raise RuntimeError

        def __repr__(self) -> str:
            raise RuntimeError

    text = described(pd.DataFrame({"odd": [Odd(), Odd()], "n": [1, 2]}))
    assert line_of(text, "odd") == ["object", "0%", ""]
    assert line_of(text, "n")[2] == "min 1, mean 1.5, max 2"
    assert "0x" not in text
    assert len(rows_of(text)) == 2


@pytest.mark.parametrize(
    ("spec", "caption", "labels"),
    [
        pytest.param("head=2", "First 2 of 9 rows:", [0, 1], id="head"),
        pytest.param("tail=2", "Last 2 of 9 rows:", [7, 8], id="tail"),
        pytest.param("tail=0", "", [], id="no rows"),
        pytest.param("head=99", "All rows:", [*range(9)], id="more than there are"),
        pytest.param("sample=99", "All rows:", [*range(9)], id="larger sample"),
        pytest.param("full", "All rows:", [*range(9)], id="full"),
        pytest.param("", "All rows:", [*range(9)], id="as many as fit"),
    ],
)
def test_rows_that_were_asked_for(spec: str, caption: str, labels: list[int]) -> None:
    text = described(pd.DataFrame({"c": range(9)}), spec)
    assert caption in text
    if labels:
        assert rows_of(text) == [f"| {label} | {label} |" for label in labels]
    else:
        assert "rows:" not in text


def test_sample_is_in_order_and_the_same_each_time() -> None:
    frame = pd.DataFrame({"c": range(1000)})
    text = described(frame, "sample=5")
    assert "5 of 1,000 rows, at random:" in text
    labels = [int(row.split("|")[1]) for row in rows_of(text)]
    assert len(set(labels)) == 5
    assert labels == sorted(labels)
    assert described(frame, "sample=5") == text


@pytest.mark.parametrize(
    "spec", ["5", "head", "head=", "head=-1", "head= 5", "HEAD=5", "full=1", "head=1e3", ".2f", " "]
)
def test_unknown_spec_is_refused(spec: str) -> None:
    with pytest.raises(ParameterError, match="head=20, tail=20, sample=20 or full") as caught:
        described(pd.DataFrame({"c": [1]}), spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["full", "head=400000"])
def test_rows_that_no_prompt_holds_are_refused(spec: str) -> None:
    with pytest.raises(InvalidRequestError, match="ask for fewer, such as head=20") as caught:
        described(pd.DataFrame({"c": range(1_000_000)}), spec)
    assert f"{MAX_CHARACTERS:,}" in str(caught.value)


def test_rows_asked_for_by_number_do_not_mind_the_budget() -> None:
    assert len(rows_of(described(pd.DataFrame({"c": range(99)}), "head=50", budget=20))) == 50


def test_full_cuts_neither_cells_nor_columns() -> None:
    frame = pd.DataFrame({f"c{i}": ["y" * 500, "z"] for i in range(50)} | {"n": [1 / 3, 0.0], "l": [[*range(50)]] * 2})
    text = described(frame, "full", budget=20)
    assert text.count("y" * 500) == 50
    assert repr(1 / 3) in text
    assert str([*range(50)]) in text
    assert "more column" not in text


def test_cells_are_cut_otherwise() -> None:
    frame = pd.DataFrame({"t": ["y" * 500], "l": [[*range(500)]], "d": [{"a|b": "c\nd"}]})
    row = rows_of(described(frame))[0]
    assert "y" * 79 + "…" in row
    assert "[0, 1, 2, 3, 4, 5, ...]" in row
    assert r"{'a\|b': 'c\nd'}" in row


def test_many_cells_that_have_no_hash_take_linear_time() -> None:
    frame = pd.DataFrame({"c": [np.array([number, 1]) for number in range(100_000)]})
    assert line_of(described(frame, "head=0"), "c")[2] == "values such as array([0, 1])"


def test_huge_cell_is_not_walked_through() -> None:
    class Lazy(list[int]):
        def __repr__(self) -> str:
            raise AssertionError("walked through")

    cell = described(pd.DataFrame({"c": [[Lazy(), *range(100_000)]]}))
    assert "Lazy instance" in cell


@pytest.mark.parametrize("cell", ["a|b", "a\nb", "a\r\nb", "a\u2028b", "\x0b", "|", "\\|"], ids=ascii)
@pytest.mark.parametrize("spec", ["", "full"])
def test_table_keeps_its_shape(cell: str, spec: str) -> None:
    frame = pd.DataFrame({cell: [cell, cell], "n": [1, 2]}, index=pd.Index([cell, cell], name=cell))
    for line in rows_of(described(frame, spec)):
        assert len(line.splitlines()) == 1
        assert line.replace(r"\|", "").count("|") == 4


def test_index_is_described_unless_it_only_numbers_the_rows() -> None:
    assert "index" not in described(pd.DataFrame({"c": [1]}))
    dated = described(pd.DataFrame({"c": [1, 2, 3]}, index=DAYS.rename("day")))
    assert line_of(dated, "index day") == ["datetime64[us]", "0%", "2026-01-01 to 2026-01-03"]
    assert rows_of(dated)[0] == "| 2026-01-01 | 1 |"
    assert line_of(described(pd.DataFrame({"c": [1]}, index=["a"])), "index")[0] == "str"


def test_levels_and_labels_of_several_levels() -> None:
    frame = pd.DataFrame({"g": ["a", "b"], "h": [True, False], "v": [1.0, 2.0]}).groupby(["g", "h"]).agg(["min", "max"])
    text = described(frame)
    assert line_of(text, "index g")[0] == "str"
    assert line_of(text, "index h")[0] == "bool"
    assert line_of(text, "('v', 'min')") == ["float64", "0%", "min 1, mean 1.5, max 2"]
    assert "| g | h | ('v', 'min') | ('v', 'max') |" in text
    assert rows_of(text)[0] == "| a | True | 1 | 1 |"


def test_duplicate_and_odd_labels() -> None:
    frame = pd.DataFrame([[1, "x", 2, 3.5]], columns=pd.Index(["c", "c", 0, None], dtype=object))
    text = described(frame)
    assert [line.split(" | ")[1] for line in text.splitlines()[4:8]] == ["int64", "str", "int64", "float64"]
    assert rows_of(text) == ["| 0 | 1 | x | 2 | 3.5 |"]


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        pytest.param(pd.DataFrame(), "DataFrame, 0 rows, 0 columns", id="nothing"),
        pytest.param(pd.DataFrame(index=range(3)), "DataFrame, 3 rows, 0 columns", id="no columns"),
        pytest.param(pd.DataFrame({"c": pd.Series(dtype="Int64")}), "| c | Int64 |  |  |", id="no rows"),
        pytest.param(pd.Series(dtype=float), "| value | float64 |  |  |", id="empty series"),
    ],
)
@pytest.mark.parametrize("spec", ["", "head=3", "sample=3", "full"])
def test_empty_table(frame: Any, text: str, spec: str) -> None:
    assert described(frame, spec).endswith(text) or (len(frame) and spec)


def test_series_is_a_table_of_one_column() -> None:
    text = described(pd.Series([1, 2], name="age"))
    assert text.startswith("Series, 2 rows\n")
    assert rows_of(text) == ["| 0 | 1 |", "| 1 | 2 |"]
    assert "| value | int64 |" in described(pd.Series([1, 2]))


@pytest.mark.parametrize("num_columns", [1, 5, 400])
@pytest.mark.parametrize("num_rows", [1, 10, 1000])
@pytest.mark.parametrize("budget", [200, 400, 2000])
def test_budget_is_kept_and_used(num_columns: int, num_rows: int, budget: int) -> None:
    frame = pd.DataFrame({f"c{i}": [f"value {i} {j}" for j in range(num_rows)] for i in range(num_columns)})
    text = describe(frame, budget=budget, count=quarters)
    assert quarters(text) <= budget
    if num_rows == 1000:
        assert f"of {num_rows:,} rows:" in text
        assert quarters(text) > budget / 2
    if num_columns == 400:
        assert "more columns: c" in text


def test_cells_give_way_to_rows() -> None:
    frame = pd.DataFrame({f"c{i}": ["some long text " * 9] * 5 for i in range(10)})
    text = described(frame, budget=500)
    assert len(rows_of(text)) >= 3
    assert "some long text some…" in text


def test_budget_for_no_row_says_so() -> None:
    frame = pd.DataFrame({"c": ["a b c d e f g h i j k l m n o p q"] * 9})
    assert described(frame, budget=30).endswith("(No row fits here.)")


def test_large_table_is_counted_about(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"id": [f"id{i}" for i in range(300_000)], "city": ["a", "b", "c", "d", "e"] * 60_000})
    text = described(frame, "head=0")
    assert line_of(text, "id")[2] == "about 300,000 distinct"
    assert line_of(text, "city")[2].startswith("about 5 distinct; ")
    assert "evenly spaced" not in text
    monkeypatch.setattr("nbllm.frames.describe._EXACT_ROWS", 1000)
    assert "The figures are of 1,000 rows, evenly spaced." in described(frame, "head=0")


def test_subclass_is_a_table_and_other_things_are_not() -> None:
    class Sub(pd.DataFrame):  # type: ignore[misc]  # pandas ships no types
        pass

    class DataFrame:
        pass

    assert is_table(Sub())
    assert is_table(pd.Series(dtype=int))
    assert not any(map(is_table, [DataFrame(), pd.DataFrame, pd.Index([1]), "DataFrame", None]))
    assert described(Sub({"c": [1]})).startswith("DataFrame, 1 row, 1 column\n")


cells = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.lists(st.integers())


@settings(max_examples=40)
@given(st.lists(st.tuples(st.text(), st.lists(cells, min_size=3, max_size=3)), min_size=1, max_size=4))
def test_any_cells_make_a_table(columns: list[tuple[str, list[Any]]]) -> None:
    frame = pd.DataFrame({number: values for number, (_, values) in enumerate(columns)}, dtype=object)
    frame.columns = pd.Index([label for label, _ in columns], dtype=object)
    rows = rows_of(described(frame))
    assert [row.replace(r"\|", "").count("|") for row in rows] == [len(columns) + 2] * 3
