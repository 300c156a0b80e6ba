"""A comparison as a table to read: what is where, and that nothing in it can do anything."""

from __future__ import annotations

import html
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from nbllm.errors import ParameterError
from nbllm.frames.compare.columns import input_of
from nbllm.frames.compare.formatting import formatted, literal, shown
from nbllm.frames.compare.grid import grid
from tests.frames.compare.sample import results, two_models
from tests.markup.attacks import ATTACKS, FRAGMENTS
from tests.markup.rendering import read, with_mistune

_ELEMENTS = re.compile(
    "div|style|table|thead|tbody|t[rhd]|details|summary|span|small|strong|em|code|pre|[bh]r|p|ins|del"
)
_ATTRIBUTES = {"class", "align", "valign", "rowspan", "colspan", "scope", "scoped", "dir"}
_TAG = re.compile(r"<(/?)([a-z]+)((?: [a-z]+(?:=\"[a-z0-9:; -]*\")?)*)>")
_STYLE = re.compile("<style.*?</style>", re.DOTALL)


def cells(page: str) -> list[list[str]]:
    """The texts of a table's rows, header first, without the lines of figures."""
    rows = re.findall("<tr>(.*?)</tr>", page, re.DOTALL)
    return [[_text(cell) for cell in re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)] for row in rows]


def _text(source: str) -> str:
    source = re.sub("<(br|hr)>|</div>|</summary>", "\n", re.sub("<div><small>1.2 s · .*?</div>", "", source))
    return html.unescape(re.sub("<.*?>", "", source)).replace("\xa0", " ").strip()


# ---- where things stand


def test_grid_has_a_row_for_each_input_and_a_column_for_each_model() -> None:
    assert cells(grid(two_models()).html) == [
        ["input", "small", "big"],
        ["Question 0?", "The short answer 0.", "The long answer 0."],
        ["Question 1?", "The short answer 1.", "The long answer 1."],
    ]


def test_footer_has_time_speed_and_tokens() -> None:
    assert "1.2 s · 45 tok/s · 120→56" in grid(results({})).html


@pytest.mark.parametrize(
    ("row", "footer"),
    [
        pytest.param({"duration_ms": 80.0}, "80 ms · 45 tok/s", id="short"),
        pytest.param({"duration_ms": 125_000.0, "tokens_per_s": 4.21}, "2 min 5 s · 4.2 tok/s", id="long"),
        pytest.param({"tokens_per_s": None, "output_tokens": None}, "<small>1.2 s</small>", id="missing"),
        pytest.param({"finish_reason": "length"}, "120→56 · cut short (length)", id="cut_short"),
    ],
)
def test_footer_of(row: dict[str, Any], footer: str) -> None:
    assert footer in grid(results(row)).html


def test_repeats_and_parameters_stack_with_what_tells_them_apart() -> None:
    frame = results(
        *({"param_temperature": t, "repeat": number, "seed": number} for t in (0, 0.8) for number in (0, 1))
    )
    words = "Because of scattering."
    assert cells(grid(frame).html)[1][1].split("\n") == [
        *("t=0 #1", words, "", "t=0 #2", words, "", "t=0.8 #1", words, "", "t=0.8 #2", words)
    ]


def test_rows_of_one_cell_that_differ_in_nothing_are_numbered() -> None:
    assert cells(grid(results({}, {"response": "Dust."})).html)[1][1].split("\n")[0] == "(1)"


def test_columns_of_several_levels_have_headers_of_several_levels() -> None:
    frame = results(*({"model": m, "param_temperature": t} for t in (0.0, 1.0) for m in ("a", "b")))
    page = grid(frame, cols=["model", "param_temperature"], values=["response", "output_tokens"]).html
    assert cells(page)[:3] == [
        ["input", "a", "b"],
        ["t=0", "t=1", "t=0", "t=1"],
        ["response", "output_tokens"] * 4,
    ]
    assert cells(page)[3][1:3] == ["Because of scattering.", "56"]
    assert 'rowspan="3"' in page
    assert 'colspan="4"' in page


def test_rows_of_several_levels_say_the_outer_one_once() -> None:
    frame = results(*({"prompt": p, "input": i} for i in ("x", "y") for p in ("one", "two")))
    assert [row[:-1] for row in cells(grid(frame, rows=["prompt", "input"]).html)[1:]] == [
        ["one", "x"], ["y"], ["two", "x"], ["y"]
    ]  # fmt: skip


def test_grid_without_columns_shows_the_values_side_by_side() -> None:
    assert cells(grid(results({}), cols=[], values=["response", "finish_reason"]).html) == [
        ["input", "response", "finish_reason"],
        ["Why is the sky blue?", "Because of scattering.", "stop"],
    ]


def test_input_of_messages_is_read_as_a_conversation() -> None:
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Ho"},
        {"role": "user", "content": "?"},
    ]
    assert cells(grid(results({"input": input_of(turns)})).html)[1][0] == "user: Hi\nassistant: Ho\nuser: ?"


def test_error_is_one_line_and_missing_and_empty_answers_differ() -> None:
    frame = results(
        {"model": "a", "response": None, "error": "ModelLoadError: bad\nfile"},
        {"model": "b", "response": None},
        {"model": "c", "response": " "},
    )
    view = grid(frame)
    assert cells(view.html)[1][1:] == ["⚠ ModelLoadError: bad file", "—", "(empty)"]
    assert "⚠ ModelLoadError" in repr(view)


def test_verdict_has_a_sign_beside_its_colour() -> None:
    frame = results(
        {"model": "a", "passed": True, "score_equals": 1.0}, {"model": "b", "passed": False, "score_equals": 0.0}
    )
    page = grid(frame).html
    assert '<small class="nbllm-passed">✓ passed · equals 1</small>' in page
    assert '<small class="nbllm-failed">✗ failed · equals 0</small>' in page


def test_values_of_any_kind_are_shown() -> None:
    frame = results({"parsed": {"a": [1, None]}}).assign(vector=[np.arange(3)], when=[pd.Timestamp("2026-01-02")])
    page = grid(frame, values=["parsed", "vector", "when", "tokens_per_s"]).html
    assert cells(page)[2][1:] == ['{"a": [1, null]}', "[0 1 2]", "2026-01-02 00:00:00", "45.2"]


def test_rows_may_be_a_column_without_hashes() -> None:
    frame = results({"parsed": {"a": 1}}, {"parsed": {"a": 2}}, {"parsed": {"a": 1}})
    assert [row[0] for row in cells(grid(frame, rows="parsed").html)] == ["parsed", '{"a": 1}', '{"a": 2}']


def test_long_answer_is_behind_its_beginning() -> None:
    page = grid(results({"response": "word " * 400})).html
    assert page.count("<details>") == 1
    assert "2,000 characters" in page


# ---- how much


def test_grid_shows_the_first_rows_and_says_how_many_more() -> None:
    view = grid(two_models(10_000), max_rows=3)
    assert len(cells(view.html)) == 4
    for text in (view.html, repr(view)):
        assert "and 9,997 more rows" in text


def test_grid_shows_a_bounded_part_of_many_columns_and_of_one_cell() -> None:
    wide = results(*({"case": number} for number in range(60)))
    assert "and 10 more columns" in grid(wide, cols="case").html
    assert "and 40 more" in grid(wide).html


@pytest.mark.parametrize("rows", [0, 1, 7], ids=["none", "one", "several"])
def test_text_fits_the_terminal(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    frame = two_models(rows) if rows else two_models(1).iloc[:0]
    frame = frame.assign(response="日本語のテキスト、 é " * 30 + "word" * 50)
    lines = repr(grid(frame, values=["response", "output_tokens", "seed"])).split("\n")
    assert max(map(_width, lines)) <= 80
    assert len({line.index("  ") for line in lines if "─" in line}) <= 2  # as many blocks, each aligned


def _width(line: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in line)


def test_empty_frame_is_an_empty_grid() -> None:
    view = grid(two_models().iloc[:0])
    assert "No rows." in view.html
    assert "No rows." in repr(view)


# ---- differences


def test_difference_is_marked_in_every_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    view = grid(two_models(1), diff=True)
    assert "The <del>short </del><ins>long </ins>answer 0." in view.html
    assert "The <del>short </del><ins>long </ins>answer 0." in view.markdown
    assert "The [-short -]{+long +}answer 0." in repr(view)


def test_difference_is_told_between_entries_of_one_label() -> None:
    frame = results(
        *(
            {"model": model, "repeat": repeat, "response": f"{model} {repeat}"}
            for model, repeats in (("a", (0, 1)), ("b", (1, 0)))
            for repeat in repeats
        )
    )
    assert cells(grid(frame, diff=True).html)[1][2].split("\n") == ["#2", "a b 1", "", "#1", "a b 0"]


def test_difference_to_nothing_is_the_answer_itself() -> None:
    frame = results({"model": "a", "response": None, "error": "E: x"}, {"model": "b", "response": "text"})
    assert "<ins>" not in grid(frame, diff=True).html


# ---- what Markdown becomes


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        pytest.param("a **b** *c* `d`", "a <strong>b</strong> <em>c</em> <code>d</code>", id="marks"),
        pytest.param("## a\nb", "<strong>a</strong><br>b", id="heading"),
        pytest.param("- a\n  - b", "• a<br>&nbsp; • b", id="bullets"),
        pytest.param("x\n\n```py\na  *b*\n```\n\ny", "x<pre><code>a  *b*</code></pre>y", id="fence"),
        pytest.param("```\na\n", "<pre><code>a\n</code></pre>", id="open_fence"),
        pytest.param("2 * 3 * 4, a**b", "2 * 3 * 4, a**b", id="products"),
        pytest.param("![x](http://a/b.png) [y](http://c)", "![x](http://a/b.png) [y](http://c)", id="links"),
        pytest.param("$x$ \\(", "<span>$</span>x<span>$</span> <span>\\</span>(", id="maths"),
    ],
)
def test_formatted(text: str, seen: str) -> None:
    assert formatted(text) == seen


def test_text_that_is_not_to_be_formatted_is_shown_as_it_is() -> None:
    assert "a **b**" in grid(results({"response": "a **b**"}), render="text").html


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=80))
def test_literal_text_reads_as_itself(text: str) -> None:
    text = shown(text)
    seen = "".join(read(literal(text).replace("<br>", "\n")).texts)
    assert seen.replace("\xa0", " ") == text.replace("\xa0", " ")


def test_many_open_marks_take_little_time() -> None:
    text = "**a " * 20_000 + "*b" * 20_000 + "`" * 20_001 + " `c" * 20_000
    assert len(formatted(text)) > len(text)


# ---- what attacks


def test_attacks_stay_text() -> None:
    if _problems(list(ATTACKS.values())):
        assert {name: found for name, attack in ATTACKS.items() if (found := _problems([attack]))} == {}
        pytest.fail("several attacks together do what none of them does alone")


@given(st.lists(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join), min_size=1, max_size=8))
@settings(max_examples=10, deadline=None)
def test_mixes_of_attacks_stay_text(attacks: list[str]) -> None:
    assert _problems(attacks) == []


def test_what_the_attacks_would_do_is_noticed() -> None:
    """The tests above can fail."""
    assert _foreign_in_page("<td><img src=x onerror=alert(1)></td>")
    assert _foreign_in_page('<td style="color: red">')
    assert _foreign_in_table("| a |\n| --- |\n| <img src=x> |", 2)
    assert _foreign_in_table("| a |\n| --- |\n| b | \n\nc\n\n| d |\n| --- |", 2)


def _problems(attacks: list[str]) -> list[str]:
    """What is in the page or the Markdown besides the grid's own elements."""
    attacks = list(dict.fromkeys(attack.encode("utf-8", "replace").decode() for attack in attacks))
    first = [{"input": text, "response": text, "error": text, "system": text, "passed": True} for text in attacks]
    second = [{"input": text, "response": text + text, "system": "x", "model": attacks[0]} for text in attacks]
    frame = results(*first, *second).assign(**{"score_<b>": 1.0})
    found = []
    chosen: list[dict[str, Any]] = [{}, {"diff": True, "values": ["response", "system"]}]
    for options in chosen:
        view = grid(frame, max_rows=None, **options)
        found += _foreign_in_page(_STYLE.sub("", view.html))
        found += _foreign_in_table(view.markdown, len(attacks) + 1)
    return found


def _foreign_in_page(page: str) -> list[str]:
    found = []
    for _, tag, attributes in _TAG.findall(page):
        found += [] if _ELEMENTS.fullmatch(tag) else [tag]
        attributes = attributes.replace(' style="text-align: left; vertical-align: top"', "")
        found += [name for name in re.findall("([a-z]+)=", attributes) if name not in _ATTRIBUTES]
    return found + re.findall("[<>]", _TAG.sub("", page))


def _foreign_in_table(markdown: str, num_rows: int) -> list[str]:
    found = []
    for page in (with_mistune(markdown), MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)):
        reader = read(page)
        num_cells = reader.elements.count("td") + reader.elements.count("th")
        is_whole = reader.elements.count("table") == 1 and reader.elements.count("tr") == num_rows
        found += [] if is_whole and num_cells % num_rows == 0 else ["no whole table"]
        found += [what for what in reader.foreign if what not in ("small", "ins")]
    return found


def test_terminal_and_bidirectional_characters_are_not_passed_on() -> None:
    view = grid(results({"response": "a\x1b[31mred\x07 \u202eevil\u2066", "input": "\x9b2Jq\x00"}))
    for text in (view.html, view.markdown, repr(view)):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert "ared [U+202E]evil[U+2066]" in repr(view)


# ---- the object


def test_mime_bundle_has_three_views_and_can_be_narrowed() -> None:
    view = grid(two_models())
    assert set(view._repr_mimebundle_()) == {"text/html", "text/markdown", "text/plain"}
    assert view._repr_mimebundle_(include=["text/plain"]) == {"text/plain": repr(view)}
    assert set(view._repr_mimebundle_(exclude=["text/html"])) == {"text/markdown", "text/plain"}


def test_grid_does_not_change_the_frame() -> None:
    frame = two_models()
    before = frame.copy(deep=True)
    repr(grid(frame, diff=True))
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"rows": "inptu"}, "rows: no column 'inptu': did you mean 'input'?", id="near_name"),
        pytest.param({"cols": ["model", "zzzzzz"]}, "cols: no column 'zzzzzz': there are 'run_id'", id="far_name"),
        pytest.param({"rows": []}, "rows: name at least one column", id="no_rows"),
        pytest.param({"values": []}, "values: name at least one column", id="no_values"),
        pytest.param({"values": 5}, "values: no column 5", id="number"),
        pytest.param({"max_rows": 0}, "max_rows: must be a whole number from 1", id="max_rows"),
        pytest.param({"render": "html"}, 'render: must be "markdown" or "text"', id="render"),
        pytest.param({"diff": "a"}, "diff: must be True or False", id="diff"),
    ],
)
def test_wrong_option_gets_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        grid(two_models(), **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_column_that_is_there_twice_is_refused() -> None:
    frame = pd.concat([two_models(), two_models()[["model"]]], axis=1)
    with pytest.raises(ParameterError, match="more than one column 'model'"):
        grid(frame)


def test_import_needs_no_pandas() -> None:
    code = "import sys, nbllm.frames.compare.grid, nbllm.frames.compare.export, nbllm.frames.compare.plot\n"
    code += "sys.exit(bool({'pandas', 'matplotlib', 'numpy'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


@pytest.mark.parametrize(
    ("frame", "example"),
    [
        pytest.param(
            pd.DataFrame({"topic": ["a"], "text": ["b"]}), "grid(rows='topic', cols=[], values='text')", id="two"
        ),
        pytest.param(pd.DataFrame(), "grid(rows='topic', cols=[], values='text')", id="none"),
        pytest.param(
            two_models()[["model", "response"]], "grid(rows='model', cols=[], values='response')", id="a part"
        ),
    ],
)
def test_grid_of_another_frame_says_what_to_write(frame: pd.DataFrame, example: str) -> None:
    with pytest.raises(ParameterError) as caught:
        grid(frame)
    assert str(caught.value).startswith("rows: no column 'input': it is no result of nbllm.compare")
    assert str(caught.value).endswith(example)
