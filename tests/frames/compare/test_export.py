"""A comparison as a page, as lines of JSON and as a table for a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import sync_playwright

from nbllm.errors import InvalidRequestError, NbllmError, ParameterError
from nbllm.frames.compare.columns import input_of
from nbllm.frames.compare.export import to_csv, to_html, to_jsonl
from tests.frames.compare.sample import results, two_models
from tests.markup.attacks import ATTACKS

FORMAT: Any = {"format": "csv"}
_COLOURS = """() => {
  const page = getComputedStyle(document.body), head = getComputedStyle(document.querySelector("thead"));
  const failed = getComputedStyle(document.querySelector(".nbllm-failed"));
  return [page.backgroundColor, page.color, head.position, failed.color];
}"""


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


# ---- pages


def test_page_is_whole_and_forbids_all_but_its_style() -> None:
    page = to_html(two_models())
    assert page.startswith("<!doctype html>")
    assert '<meta charset="utf-8">' in page
    assert "default-src 'none'; style-src 'unsafe-inline'" in page
    assert "<script" not in page


def test_page_shows_all_rows_unless_told_otherwise() -> None:
    frame = two_models(70)
    assert "Question 69?" in to_html(frame)
    assert "and 69 more rows" in to_html(frame, max_rows=1)


@pytest.mark.browser
def test_page_in_a_browser_follows_the_theme_and_loads_nothing(chromium_path: str, tmp_path: Path) -> None:
    attacks = [attack.encode("utf-8", "replace").decode() for attack in ATTACKS.values()]
    frame = results(*({"input": attack, "response": attack, "passed": False} for attack in attacks))
    to_html(frame, tmp_path / "page.html")
    seen, colours = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_page(color_scheme=scheme)
            page.on("request", lambda request: seen.append(request.url))
            page.on("dialog", lambda dialog: seen.append(dialog.message))
            page.on("console", lambda message: seen.append(message.text))
            page.goto((tmp_path / "page.html").as_uri())
            colours.append(page.evaluate(_COLOURS))
            assert page.locator("tbody tr").count() == len(set(attacks))
            assert page.locator("img, script, a, iframe, svg, link, object, form").count() == 0
        browser.close()
    assert seen == [(tmp_path / "page.html").as_uri()] * 2
    assert colours == [
        ["rgb(255, 255, 255)", "rgb(28, 28, 28)", "sticky", "rgb(194, 32, 43)"],
        ["rgb(24, 24, 24)", "rgb(228, 228, 228)", "sticky", "rgb(255, 135, 128)"],
    ]


# ---- lines of JSON


def test_messages_are_conversations_of_the_answered_rows() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    frame = results(
        {"system": "Be brief.", "input": "Hi", "response": "Ho"},
        {"response": None, "error": "E: x"},
        {"input": input_of(turns), "response": "d"},
    )
    brief, answer = {"role": "system", "content": "Be brief."}, {"role": "assistant", "content": "Ho"}
    assert lines(to_jsonl(frame)) == [
        {"messages": [brief, {"role": "user", "content": "Hi"}, answer]},
        {"messages": [*turns, {"role": "assistant", "content": "d"}]},
    ]


def test_rows_keep_every_column_and_every_row_as_json() -> None:
    frame = results({"parsed": {"a": [1, float("nan")]}, "passed": True}, {"response": None, "output_tokens": None})
    first, second = lines(to_jsonl(frame.assign(vector=[np.ones(2, dtype="float32")] * 2), format="rows"))
    assert first["parsed"] == {"a": [1, None]}
    assert first["created_at"] == "2026-01-02T03:04:05+00:00"
    assert (first["passed"], first["vector"], first["input_tokens"]) == (True, [1.0, 1.0], 120)
    assert (second["response"], second["output_tokens"], second["passed"]) == (None, None, None)
    assert list(first) == [*frame.columns, "vector"]


@given(st.text(st.characters(codec="utf-8"), max_size=30))
@settings(max_examples=30, deadline=None)
def test_any_text_is_one_line_and_comes_back(text: str) -> None:
    (row,) = lines(to_jsonl(pd.DataFrame({"x": [text]}), format="rows"))
    assert row == {"x": text}


def test_preferences_are_the_best_and_the_worst_of_each_prompt() -> None:
    frame = results(
        *({"input": "p", "response": f"r{score}", "score_judge": score} for score in (3, 5, 1, None)),
        *({"input": "tie", "response": text, "score_judge": 2} for text in "ab"),
        {"input": "p", "system": "other", "response": "alone", "score_judge": 4},
    )
    (pair,) = lines(to_jsonl(frame, format="dpo"))
    assert pair == {
        "prompt": [{"role": "user", "content": "p"}],
        "chosen": [{"role": "assistant", "content": "r5"}],
        "rejected": [{"role": "assistant", "content": "r1"}],
    }


def test_preferences_without_scores_are_by_passed() -> None:
    frame = results({"response": "bad", "passed": False}, {"response": "good", "passed": True})
    (pair,) = lines(to_jsonl(frame, format="dpo"))
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("good", "bad")


def test_preferences_of_pairwise_judgements_are_their_winners() -> None:
    pair: dict[str, str | None] = {
        "input": "p",
        "model_a": "x",
        "model_b": "y",
        "response_a": "from x",
        "response_b": "from y",
    }
    frame = pd.DataFrame([pair | {"winner": winner} for winner in ("y", "tie", None, "x")])
    found = lines(to_jsonl(frame, format="dpo"))
    assert [line["chosen"][0]["content"] for line in found] == ["from y", "from x"]
    assert [line["rejected"][0]["content"] for line in found] == ["from x", "from y"]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        pytest.param(lambda: to_jsonl(two_models(), **FORMAT), 'must be "messages", "rows" or "dpo"', id="format"),
        pytest.param(lambda: to_jsonl(two_models(), score="x"), 'for format="dpo" only', id="score_of_messages"),
        pytest.param(lambda: to_jsonl(two_models(), format="dpo"), "there is no score", id="no_score"),
        pytest.param(
            lambda: to_jsonl(results({"score_a": 1, "score_b": 2}), format="dpo"), "name one of 'score_a'", id="several"
        ),
        pytest.param(
            lambda: to_jsonl(results({"score_equals": 1}), format="dpo", score="equal"),
            "did you mean 'score_equals'",
            id="near",
        ),
        pytest.param(lambda: to_jsonl(two_models(), format="dpo", score="response"), "holds texts", id="texts"),
        pytest.param(
            lambda: to_jsonl(results({"score_a": 1}, {"score_a": 1}), format="dpo"), '"dpo" has no pair', id="no_pair"
        ),
        pytest.param(lambda: to_jsonl(pd.DataFrame({"a": [1]})), "no result of nbllm.compare", id="other_frame"),
    ],
)
def test_wrong_option_of_jsonl_gets_one_line(ask: Callable[[], str], message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        ask()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- spreadsheets


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "\u200b=1", "\uff1d1"],
    ids=["equals", "plus", "minus", "at", "tab", "return", "line_feed", "spaces", "zero_width", "full_width"],
)
def test_formula_gets_an_apostrophe(text: str) -> None:
    table = to_csv(results({"response": text, "model": text, "parsed": [text]}).rename(columns={"system": text}))
    header, row = csv.reader(io.StringIO(table, newline=""))
    assert f"'{text}" in header
    assert (row[header.index("response")], row[header.index("model")]) == (f"'{text}", f"'{text}")


def test_what_is_no_formula_stays() -> None:
    frame = results({"response": 'a "=1", b\n=2', "score_x": -1.5, "system": None, "parsed": {"a": 1}})
    (row,) = csv.DictReader(io.StringIO(to_csv(frame), newline=""))
    assert row["response"] == 'a "=1", b\n=2'
    assert (row["score_x"], row["system"], row["parsed"], row["input_tokens"]) == ("-1.5", "", '{"a": 1}', "120")


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_table_holds_each_text_or_its_apostrophe(texts: list[str]) -> None:
    (_, *rows) = csv.reader(io.StringIO(to_csv(pd.DataFrame({"x": texts, "y": 1})), newline=""))
    assert [row[0].removeprefix("'") for row in rows] == [text.removeprefix("'") for text in texts]
    assert not any(row[0].lstrip()[:1] in tuple("=+-@") for row in rows)


# ---- files


@pytest.mark.parametrize("write", [to_html, to_jsonl, to_csv], ids=["html", "jsonl", "csv"])
def test_file_has_the_text_in_utf8(write: Callable[..., str | None], tmp_path: Path) -> None:
    frame = results({"response": "größer 日本\r\nx"})
    path = tmp_path / "out"
    path.write_text("before", encoding="utf-8")
    assert write(frame, path) is None
    assert path.read_bytes().decode("utf-8-sig") == write(frame)
    assert list(tmp_path.iterdir()) == [path]


def test_table_has_the_mark_that_excel_looks_for(tmp_path: Path) -> None:
    to_csv(two_models(), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes().startswith(b"\xef\xbb\xbf")


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_file_can_be_read_by_others(tmp_path: Path) -> None:
    to_html(two_models(), tmp_path / "page.html")
    assert stat.S_IMODE((tmp_path / "page.html").stat().st_mode) == 0o644


@pytest.mark.parametrize("path", ["no/such/folder/x", "", "a\0b"], ids=["no_folder", "empty", "null"])
def test_file_that_cannot_be_written_is_one_line(path: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="cannot write") as caught:
        to_jsonl(two_models(), str(tmp_path / path) if path else str(tmp_path))
    assert isinstance(caught.value, NbllmError)
    assert "\n" not in str(caught.value)
