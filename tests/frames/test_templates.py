"""What is a place in a row's prompt, and what stays as it was typed."""

from __future__ import annotations

import datetime
import pickle
import string
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.errors import ParameterError
from nbllm.frames.templates import RowTemplate, TemplateError, is_null, shown

ROW = {"review": "fine", "unit price": 2.5, "day": datetime.date(2026, 3, 1), "a:b": "colon", "": "itself"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("Say {review}.", "Say fine.", id="a column"),
        pytest.param("{review}{review}", "finefine", id="twice"),
        pytest.param("{unit price}", "2.5", id="with a space in its name"),
        pytest.param("{a:b}", "colon", id="with a colon in its name"),
        pytest.param("Of {}", "Of itself", id="the value of a Series"),
        pytest.param("{unit price:.2f}", "2.50", id="a format"),
        pytest.param("{day:%d %B}", "01 March", id="a date's format"),
        pytest.param("{{review}}", "{review}", id="doubled"),
        pytest.param("{{{review}}}", "{fine}", id="a place in doubled ones"),
        pytest.param('{{"a": {"b": 1}}}', '{"a": {"b": 1}}', id="doubled around JSON"),
        pytest.param('{"a": {"b": 1}}', '{"a": {"b": 1}}', id="JSON"),
        pytest.param('{"a": "{review}"}', '{"a": "fine"}', id="a place in JSON"),
        pytest.param("{0} {x + 1} {f()} {'k'}", "{0} {x + 1} {f()} {'k'}", id="no name"),
        pytest.param("{review: no}", "{review: no}", id="a space after the colon"),
        pytest.param("} { }} {", "} { }} {", id="lone braces"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_render_fills_in_columns_only(text: str, expected: str) -> None:
    assert RowTemplate(text, list(ROW)).render(ROW) == expected


@pytest.mark.parametrize(
    ("text", "columns", "hint"),
    [
        pytest.param("{reviw}", ["id", "review"], "did you mean {review}?", id="a slip"),
        pytest.param("{REVIEW}", ["id", "review"], "did you mean {review}?", id="capitals"),
        pytest.param("{zzz}", ["id", "review"], "the columns are id, review", id="nothing near"),
        pytest.param("{zzz}", [], "there are no columns", id="no columns"),
        pytest.param("{zzz}", [""], "write {} for the value", id="a Series"),
    ],
)
def test_template_that_names_no_column_says_what_to_type(text: str, columns: list[str], hint: str) -> None:
    with pytest.raises(TemplateError) as caught:
        RowTemplate(text, columns)
    assert hint in str(caught.value)
    assert f"{{{text}}}" in str(caught.value)
    assert isinstance(caught.value, KeyError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


COLUMNS = ["my col", "Price ($)", "a-b", "1st", "u", "days", "price", "q}"]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("{my cl}", "did you mean {my col}?"),
        ("{price ($)}", "did you mean {Price ($)}?"),
        ("{a-c}", "did you mean {a-b}?"),
        ("{1ts}", "did you mean {1st}?"),
        ("{ u }", "did you mean {u}?"),
        ("{u!r}", "did you mean {u}? Only a format may follow"),
        ("{u.real}", "did you mean {u}? Only a format may follow"),
        ("{days[0]}", "did you mean {days}? Only a format may follow"),
        ("{my col.x}", "did you mean {my col}? Only a format may follow"),
        ("{prce:.2f}", "did you mean {price}?"),
        ("{price :.2f}", "did you mean {price}?"),
        ("{q}}", "'q}', a name with a brace in it cannot stand here: rename the column"),
    ],
    ids=repr,
)
def test_what_is_nearly_a_column_is_an_error(text: str, hint: str) -> None:
    with pytest.raises(TemplateError) as caught:
        RowTemplate(f"Of {text}", COLUMNS, "criteria")
    assert str(caught.value).startswith("criteria: ")
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ['{"u": 1}', "{'u'}", "{u: no}", "{price()}", "{price + 1}", "{7}", "{2,3}", "{ }", "{k:v}", "{u;}", "{a, b}"],
)
def test_what_looks_like_code_stays(text: str) -> None:
    template = RowTemplate(text, COLUMNS)
    assert (template.names, template.render({})) == ((), text)


def test_template_that_is_no_text_is_refused() -> None:
    with pytest.raises(ParameterError, match="prompt: must be a text"):
        RowTemplate(5, ["a"])  # type: ignore[arg-type]


def test_format_that_a_value_does_not_take_is_that_rows_error() -> None:
    template = RowTemplate("{review:.2f}", ["review"])
    assert template.render({"review": 1}) == "1.00"
    with pytest.raises(TemplateError, match="does not suit 'fine'"):
        template.render({"review": "fine"})


def test_names_are_the_used_columns_in_order() -> None:
    assert RowTemplate("{b} {a} {b:>3} {{c}}", ["a", "b", "c"]).names == ("b", "a")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(None, True, id="None"),
        pytest.param(float("nan"), True, id="NaN"),
        pytest.param(np.float32("nan"), True, id="a narrow NaN"),
        pytest.param(pd.NA, True, id="NA"),
        pytest.param(pd.NaT, True, id="NaT"),
        pytest.param(Decimal("NaN"), True, id="a decimal NaN"),
        pytest.param("", False, id="an empty text"),
        pytest.param(0, False, id="zero"),
        pytest.param(False, False, id="False"),
        pytest.param([], False, id="an empty list"),
        pytest.param([None], False, id="a list of nothing"),
        pytest.param(np.array([np.nan, 1.0]), False, id="an array"),
        pytest.param(np.array([]), False, id="an empty array"),
        pytest.param(pd.Timestamp("2026-01-01"), False, id="a time"),
    ],
)
def test_null_is_what_pandas_calls_missing(value: object, expected: bool) -> None:
    assert is_null(value) is expected


def test_row_with_a_null_that_is_used_has_no_prompt() -> None:
    template = RowTemplate("{a}", ["a", "b"])
    assert template.render({"a": pd.NA, "b": 1}) is None
    assert template.render({"a": 1, "b": None}) == "1"


def test_lists_and_dicts_are_shown_as_json() -> None:
    assert shown(["ä", 1, {"b": datetime.date(2026, 3, 1)}]) == '["ä", 1, {"b": "2026-03-01"}]'
    assert shown({(1, 2): 3}) == "{(1, 2): 3}"
    loop: list[object] = []
    loop.append(loop)
    assert shown(loop) == "[[...]]"


@pytest.mark.parametrize(
    ("value", "as_list"),
    [
        pytest.param(np.arange(2000), list(range(2000)), id="a long array"),
        pytest.param(np.array(["a", "b"], object), ["a", "b"], id="texts"),
        pytest.param(np.array([np.array([1]), np.array([2, 3])], object), [[1], [2, 3]], id="arrays in an array"),
        pytest.param({"a": np.array([1.5]), "b": np.int64(1)}, {"a": [1.5], "b": 1}, id="in a dict"),
        pytest.param(pd.Series([1, 2]), [1, 2], id="a Series"),
        pytest.param(pd.array([1, None], dtype="Int64"), [1, None], id="an array of pandas"),
        pytest.param(pd.DataFrame({"a": [1, 2]}), [{"a": 1}, {"a": 2}], id="a frame"),
        pytest.param(np.array(["2024-01-01", "NaT"], "M8[ns]"), [datetime.datetime(2024, 1, 1), None], id="moments"),
        pytest.param(pd.Series([pd.Timestamp("2024-01-01", tz="UTC")]), ["2024-01-01 00:00:00+00:00"], id="time zone"),
    ],
)
def test_arrays_are_shown_whole_as_lists_are(value: object, as_list: object) -> None:
    assert shown(value) == shown(as_list)
    assert shown(value)[0] in "[{"


def test_number_of_numpy_is_shown_as_it_was() -> None:
    assert (shown(np.float32(0.1)), shown(np.array(3)), shown(np.datetime64("2024-01-01"))) == (
        "0.1",
        "3",
        "2024-01-01",
    )


@given(st.text(alphabet=string.ascii_letters + " \n.,äß\\%"))
def test_text_without_braces_stays(text: str) -> None:
    assert RowTemplate(text, ["a"]).render({"a": 1}) == text


@given(
    st.text(st.characters(exclude_characters="\x00\x01")),
    st.lists(st.sampled_from(["{", "}", "{a}", "{b}", "{{", "-", " ", "0"])).map("".join),
)
def test_value_is_never_looked_at_again(value: str, around: str) -> None:
    """What a value holds, braces too, comes out as it is, once for each place."""
    template = RowTemplate(around + "{a}", ["a", "b"])
    marked = template.render({"a": "\x00", "b": "\x01"})
    assert marked is not None
    assert template.render({"a": value, "b": value}) == marked.replace("\x00", value).replace("\x01", value)
