from __future__ import annotations

import collections
import datetime
import decimal
import enum
import functools
import linecache
import pathlib
import subprocess
import sys
import traceback
import types
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.errors import InvalidRequestError
from nbllm.frames.describe import MAX_CHARACTERS
from nbllm.notebook.values import as_text, estimate_tokens, failure, one_line
from nbllm.session.model import Model
from nbllm.session.response import Response
from tests.loaded import smollm2

__all__ = ["smollm2"]


class Colour(enum.Enum):
    RED = 1


class Plain:
    """Has no repr of its own."""


class Own:
    def __init__(self, said: object) -> None:
        self.said = said

    def _repr_llm_(self) -> object:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said

    def __repr__(self) -> str:
        return "Own()"


class Broken:
    def __repr__(self) -> str:
        raise ValueError("no\nway")


class Endless:
    def _repr_llm_(self) -> str:
        return as_text(self)


def double(number: int) -> int:
    # a comment that only the source has
    return 2 * number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(None, "None", id="None"),
        pytest.param(True, "True", id="bool"),
        pytest.param(12, "12", id="int"),
        pytest.param(0.1, "0.1", id="float"),
        pytest.param(np.float64(1.5), "1.5", id="numpy float"),
        pytest.param(np.bool_(False), "False", id="numpy bool"),
        pytest.param(np.int8(3), "3", id="numpy int"),
        pytest.param(np.array(7), "7", id="array without axes"),
        pytest.param("a {x}\n'b'", "a {x}\n'b'", id="text"),
        pytest.param(np.str_("a"), "a", id="numpy text"),
        pytest.param("", "", id="empty text"),
        pytest.param([1, "a", None], "[1, 'a', None]", id="list"),
        pytest.param([np.float64(0.5), np.True_], "[0.5, True]", id="numpy in a list"),
        pytest.param({"b": 1, "a": [2]}, "{'b': 1, 'a': [2]}", id="dict"),
        pytest.param({"b", "a"}, "{'a', 'b'}", id="set in order"),
        pytest.param(datetime.date(2026, 3, 1), "2026-03-01", id="date"),
        pytest.param(decimal.Decimal("1.50"), "1.50", id="decimal"),
        pytest.param(pathlib.PurePosixPath("/a/b"), "/a/b", id="path"),
        pytest.param(Colour.RED, "Colour.RED", id="enum"),
        pytest.param(pd.Timestamp("2026-03-01"), "2026-03-01 00:00:00", id="pandas time"),
        pytest.param(Response(text="*yes*", reasoning="hm"), "*yes*", id="response"),
        pytest.param(Own("for models"), "for models", id="own words"),
        pytest.param(Own({"text/plain": "p", "text/markdown": "m"}), "m", id="own words as Markdown"),
        pytest.param(Own({"text/plain": "p"}), "p", id="own words as plain text"),
        pytest.param(Own(None), "Own()", id="no own words after all"),
    ],
)
def test_text_of_a_value(value: object, text: str) -> None:
    assert as_text(value) == text


@pytest.mark.parametrize(
    ("value", "spec", "text"),
    [
        pytest.param(3.14159, ".2f", "3.14", id="float"),
        pytest.param(np.float64(2), ".1f", "2.0", id="numpy float"),
        pytest.param(1234567, ",", "1,234,567", id="thousands"),
        pytest.param("a", ">3", "  a", id="text"),
        pytest.param(datetime.date(2026, 3, 1), "%B %Y", "March 2026", id="date"),
    ],
)
def test_format_is_that_of_python(value: object, spec: str, text: str) -> None:
    assert as_text(value, spec) == text


@pytest.mark.parametrize(
    ("value", "spec", "says"),
    [
        pytest.param("a", ".2f", "a str does not take the format '.2f': ValueError", id="format of text"),
        pytest.param([1], "d", "a list does not take the format 'd': TypeError", id="format of a list"),
        pytest.param(pd.DataFrame(), "top=3", "head=20, tail=20, sample=20 or full, not 'top=3'", id="table"),
        pytest.param(Broken(), "", "a Broken cannot be shown: ValueError: no way", id="repr"),
        pytest.param([Broken()], "", "ValueError: no way", id="repr in a list"),
        pytest.param(Own(KeyError("k")), "", "an Own cannot be shown: KeyError: 'k'", id="own words fail"),
        pytest.param(Own(12), "", "returned an int", id="own words are no text"),
        pytest.param(Own({"image/png": ""}), "", "text/markdown or text/plain", id="own words are a picture"),
        pytest.param("a" * (MAX_CHARACTERS + 1), "", "400,001 characters", id="long text"),
        pytest.param(Own("a" * (MAX_CHARACTERS + 1)), "", "400,001 characters", id="long own words"),
        pytest.param(10**5000, "", "limit", id="int with too many digits"),
    ],
)
def test_what_cannot_be_shown_is_one_line(value: object, spec: str, says: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        as_text(value, spec)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_recursion_in_own_words_is_one_line() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        as_text(Endless())
    assert "RecursionError" in str(caught.value)
    assert len(str(caught.value)) < 500


def test_deep_nesting_is_one_line() -> None:
    nested: list[Any] = []
    for _ in range(20_000):
        nested = [nested]
    with pytest.raises(InvalidRequestError, match="RecursionError"):
        as_text(nested)


def test_list_that_holds_itself_is_shown() -> None:
    cyclic: list[Any] = [1]
    cyclic.append(cyclic)
    assert as_text(cyclic).startswith("[1, ")


def test_mock_has_no_words_of_its_own() -> None:
    assert as_text(Mock(name="thing")).startswith("<Mock name='thing'")


@pytest.mark.parametrize(
    "value", [Plain(), [Plain()], {"a": Plain()}, as_text.__get__(1)], ids=["object", "list", "dict", "method"]
)
def test_no_address_reaches_the_prompt(value: object) -> None:
    assert "0x" not in as_text(value)


class Huge:
    def __repr__(self) -> str:
        return "word " * 20_000_000


@pytest.mark.parametrize(
    ("value", "of"),
    [
        pytest.param(Huge(), "a Huge", id="repr of 100 MB"),
        pytest.param(["x" * 1_000_000], "a list of 1 item)", id="text in a list"),
        pytest.param(list(range(1_000_000)), "a list of 1,000,000 items", id="long list"),
        pytest.param(dict.fromkeys(range(100_000)), "a dict of 100,000 items", id="long dict"),
        pytest.param([[0] * 10_000] * 10_000, "a list of 10,000 items", id="nested"),
        pytest.param(b"\0" * 1_000_000, "4,000,003 characters", id="bytes"),
        pytest.param(collections.deque(range(100_000)), "a deque", id="deque"),
        pytest.param(list(range(700)), "characters", id="a little too long"),
    ],
)
@pytest.mark.parametrize("budget", [100, 1000])
def test_long_repr_is_cut_to_the_budget_and_says_so(value: object, of: str, budget: int) -> None:
    text = as_text(value, budget=budget)
    assert budget / 2 < estimate_tokens(text) <= budget
    last = text.splitlines()[-1]
    assert last.startswith("… (cut: the first ")
    assert of in last


def test_list_of_numbers_takes_one_line() -> None:
    assert as_text(list(range(200))) == str(list(range(200)))


def test_nested_values_are_laid_out() -> None:
    value = {f"key {i}": {"title": "a rather long title " * 2, "tags": ["one", "two"]} for i in range(2)}
    assert len(as_text(value).splitlines()) > 1


@pytest.mark.parametrize(
    "value", [double, functools.lru_cache(double), types.MethodType(double, 1)], ids=["function", "cached", "method"]
)
def test_function_is_its_source(value: object) -> None:
    assert as_text(value).startswith("def double(number: int) -> int:\n    # a comment")


def test_class_is_its_source() -> None:
    assert as_text(Plain) == 'class Plain:\n    """Has no repr of its own."""'


def test_class_of_a_cell_is_its_source() -> None:
    lines = [
        "import functools\n",
        "\n",
        "@functools.total_ordering\n",
        "class InCell:\n",
        "    x = 1\n",
        "\n",
        "y = 2\n",
    ]
    linecache.cache["<cell 1>"] = (1, None, ["class InCell: 'an older one'\n"], "<cell 1>")
    linecache.cache["<cell 2>"] = (1, None, lines, "<cell 2>")
    try:
        assert as_text(type("InCell", (), {"__module__": "__main__"})) == "".join(lines[2:5]).rstrip()
        assert as_text(type("Elsewhere", (), {"__module__": "__main__"})) == "__main__.Elsewhere"
    finally:
        del linecache.cache["<cell 1>"], linecache.cache["<cell 2>"]


@pytest.mark.parametrize(("value", "text"), [(len, "len"), (int, "int"), (print, "print")], ids=["len", "int", "print"])
def test_builtin_without_source_is_its_repr(value: object, text: str) -> None:
    assert text in as_text(value)


def test_exception_is_its_traceback_without_the_shells_frames() -> None:
    scope = {"raising": lambda: 1 / 0}
    exec(compile("def shell():\n    raising()", "/venv/IPython/core/interactiveshell.py", "exec"), scope)
    try:
        scope["shell"]()
    except ZeroDivisionError as error:
        raised = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
    text = as_text(raised)
    assert text.startswith("Traceback (most recent call last):\n")
    assert "interactiveshell" not in text
    assert "1 / 0" in text
    assert text.endswith("ZeroDivisionError: division by zero")


def test_exception_that_was_not_raised_and_cannot_be_printed_is_shown() -> None:
    class SilentError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert as_text(SilentError()).endswith("SilentError: <exception str() failed>")
    assert failure(SilentError()) == "SilentError"


def test_long_traceback_keeps_its_end() -> None:
    text = as_text(ValueError("\n".join(f"line {i}" for i in range(5000)) + "\nthe point"), budget=200)
    assert text.startswith("… (cut: the last ")
    assert text.endswith("the point")
    assert estimate_tokens(text) <= 200


@pytest.mark.parametrize(
    ("array", "head", "values"),
    [
        pytest.param(np.arange(3), "shape (3,), int64:", "[0, 1, 2]", id="small"),
        pytest.param(np.zeros((0, 3)), "shape (0, 3), float64:", "[]", id="empty"),
        pytest.param(
            np.arange(10_000), "int64, min 0, mean 4999.5, max 9999:", "2, ..., 9997, 9998, 9999]", id="large"
        ),
        pytest.param(np.full((100, 100), np.nan), "float64, 100.0% NaN or infinite:", "[[nan,", id="all missing"),
        pytest.param(
            np.array([1.0, 3.0, np.inf, np.nan] * 999), "mean 2, max 3, 50.0% NaN or infinite:", "", id="gaps"
        ),
        pytest.param(np.arange(5000) % 2 == 0, "bool, 50.0% True:", "[ True, False,", id="bool"),
        pytest.param(np.array(["a", None], dtype=object), "object:", "['a', None]", id="objects"),
        pytest.param(np.array([Plain()] * 2000), "shape (2000,), object:", "Plain object>,", id="many objects"),
        pytest.param(np.zeros((2,) * 20), "float64, min 0, mean 0, max 0:", "[0., 0.", id="many axes"),
        pytest.param(np.zeros((2,) * 15).T[..., ::2], "max 0:", "[0., 0.", id="many axes, not contiguous"),
        pytest.param(np.array([60000] * 2000, dtype=np.float16), "mean 60000", "", id="sum that overflows"),
    ],
)
def test_array_is_summed_up(array: Any, head: str, values: str) -> None:
    text = as_text(array)
    assert head in text.splitlines()[0]
    assert values in text
    assert "0x" not in text
    assert estimate_tokens(text) <= 1000


def test_huge_array_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbllm.notebook.values._MAX_EXACT_SIZE", 1000)
    assert "about min 0, mean 4995, max 9990" in as_text(np.arange(10_000))


def test_table_is_described() -> None:
    frame = pd.DataFrame({"age": [1, 2]})
    assert as_text(frame).startswith("DataFrame, 2 rows, 1 column\n")
    assert as_text(frame["age"]).startswith("Series, 2 rows\n")
    assert "First 1 of 2 rows:" in as_text(frame, "head=1")


def test_pandas_and_numpy_are_not_imported() -> None:
    script = (
        "import sys; from nbllm.notebook.values import as_text; as_text([1]); as_text('a'); as_text(ValueError())\n"
        "print([name for name in ('pandas', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@given(st.text(), st.integers(1, 40))
def test_one_line_is_one_short_line(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit
    assert len(line.splitlines()) <= 1


@settings(max_examples=40)
@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_any_nested_value_fits_the_budget(value: object) -> None:
    text = as_text(value, budget=60)
    assert isinstance(value, str) or estimate_tokens(text) <= 60


@given(st.text(), st.text())
def test_estimate_grows_with_the_text(text: str, more: str) -> None:
    assert estimate_tokens(text) <= estimate_tokens(text + "\n" + more)


PROSE = """The committee met on Thursday to discuss the annual report. Its members, who had travelled from several
countries, agreed that the results were encouraging; nevertheless, they asked for further evidence before publication.
"We should not hurry," said the chair. It was a cold morning, and the windows of the old library rattled."""
TABLE = as_text(
    pd.DataFrame(
        {
            "customer_id": range(1000, 1100),
            "name": ["Anna Schmidt", "Bob Jones", "Chen Wei", "Zsófia Nagy"] * 25,
            "price": np.random.default_rng(0).normal(100, 30, 100).round(2),
            "when": pd.date_range("2026-01-01", periods=100),
            "code": ["XK-42B", "aj7", "QZ_11", None] * 25,
        }
    )
)


@pytest.mark.model
@pytest.mark.parametrize(
    ("text", "at_most"),
    [
        pytest.param(PROSE, 2, id="prose"),
        pytest.param(TABLE, 2, id="table"),
        pytest.param(as_text(pd.DataFrame(np.random.default_rng(0).normal(size=(50, 4)))), 2, id="table of numbers"),
        pytest.param(
            as_text(traceback, budget=3000) + as_text(traceback.TracebackException, budget=3000), 2.5, id="code"
        ),
        pytest.param("1234567890 3.14159 -17 2026-11-22" * 20, 2, id="digits"),
        pytest.param("deadbeef-0b1c-4a5d-9e8f-77aa12bc34de " * 10, 2, id="hexadecimal"),
        pytest.param(
            "Die Würde des Menschen ist unantastbar. Sie zu achten und zu schützen ist Pflicht.", 2, id="German"
        ),
        pytest.param("Ни шагу назад, друзья мои", 4, id="Cyrillic"),
        pytest.param("人人生而自由,在尊严和权利上一律平等", 4, id="Chinese"),
        pytest.param("👍🏽 👨‍👩‍👧", 4, id="emoji"),
        pytest.param("{\n    'a': [\n        1,\n        None,\n    ],\n}\n\n\n" * 20, 2.5, id="layout"),
        pytest.param("=" * 40 + "\n" + "-" * 40 + "\n" + " " * 40 + "\n\n\n\n\n" + "#" * 12, 5, id="rules"),
    ],
)
def test_estimate_is_not_below_the_count_of_a_model(smollm2: Model, text: str, at_most: float) -> None:
    assert 1 <= estimate_tokens(text) / smollm2.count_tokens(text) <= at_most
