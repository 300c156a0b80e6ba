from __future__ import annotations

import re
from datetime import date
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.notebook.interpolation import interpolate


class Grumpy:
    @property
    def mood(self) -> str:
        raise RuntimeError("not\ntoday")


NAMES: dict[str, Any] = {
    "x": 5,
    "y": 7,
    "n": 3,
    "k": "key",
    "_": "last",
    "größe": 9,
    "day": date(2026, 3, 1),
    "xs": [1, [2, 3]],
    "d": {"a": 1, "b c": {"e": 2}, "it's": 4, 0: "zero"},
    "obj": SimpleNamespace(name="Ann", _secret="s", rows=[SimpleNamespace(id=42)]),
    "Out": {3: "three"},
    "grumpy": Grumpy(),
    "braces": "{x} {{y}} {obj.name}",
}


def filled(text: str) -> str:
    return interpolate(text, NAMES, format)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("{x} and {y}.", "5 and 7.", id="names"),
        pytest.param("{x}{y}", "57", id="side by side"),
        pytest.param("{größe}", "9", id="unicode"),
        pytest.param("{_}", "last", id="last output"),
        pytest.param("{obj.name}", "Ann", id="attribute"),
        pytest.param("{obj._secret}", "s", id="private attribute"),
        pytest.param("{xs[0]} {xs[-1]} {xs[1][0]}", "1 [2, 3] 2", id="index"),
        pytest.param("{d['a']} {d[\"b c\"]['e']} {d[\"it's\"]}", "1 2 4", id="key"),
        pytest.param("{d[0]} {Out[3]}", "zero three", id="key that is a number"),
        pytest.param("{obj.rows[0].id:04d}", "0042", id="chain and format"),
        pytest.param("{x:.2f}", "5.00", id="format"),
        pytest.param("{x:*>3}", "**5", id="alignment"),
        pytest.param("{day:%d %B %Y}", "01 March 2026", id="date with spaces"),
        pytest.param("file_{x}.csv $x ${x}", "file_5.csv $x $5", id="inside a word"),
        pytest.param('{"a": {x}, "b": {"c": 1}}', '{"a": 5, "b": {"c": 1}}', id="in JSON"),
        pytest.param("{{x}}", "{x}", id="doubled"),
        pytest.param("{{{x}}}", "{5}", id="in braces"),
        pytest.param('{{"a": {{"b": {x}}}}}', '{"a": {"b": 5}}', id="JSON doubled throughout"),
        pytest.param("{{ x }} {{% if %}}", "{ x } {% if %}", id="Jinja"),
        pytest.param("{{x", "{x", id="never closed"),
        pytest.param("{{x} }}", "{x} }}", id="closed by a single brace"),
    ],
)
def test_place_is_filled_in(text: str, expected: str) -> None:
    assert filled(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{} {0} {1:>3} {!r}", id="format fields"),
        pytest.param("{unknown} {unknown.x[0]:.2f}", id="unknown name"),
        pytest.param("{ x } {x } { x}", id="spaces"),
        pytest.param("{x: 5} {x:} {x: >3}", id="space after the colon"),
        pytest.param("{k:v for k in x} {k: v for k, v in d.items()}", id="dict comprehension"),
        pytest.param("{x for x in xs} {x, y} {x + 1} {x()} {x!r} {x=} {xs[0:1]} {xs[n]}", id="expressions"),
        pytest.param('{"x": 1, "y": {"x": [1, {}]}}', id="JSON"),
        pytest.param("function f() { return {x: 1, y}; }", id="JavaScript"),
        pytest.param("}} } {", id="unbalanced"),
        pytest.param("{x\n} {d['a\n']}", id="line breaks"),
        pytest.param(r"\{x\}", id="LaTeX set"),
        pytest.param(r"\frac{x}{y}", id="LaTeX fraction"),
        pytest.param(r"\frac{x+1}{y} \sqrt[n]{x} \sqrt[3]{x^{n}} \text*{x}", id="LaTeX arguments"),
        pytest.param(r"\sum_{k}^{n} \int_0^{x} \hat{x}_{k}^{n}", id="LaTeX scripts"),
        pytest.param(r"\textbf{the {x} of \emph{y}}", id="LaTeX nested"),
        pytest.param(r"\begin{x} \n{x}", id="backslash and letters"),
    ],
)
def test_other_braces_stay(text: str) -> None:
    assert filled(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(r"\frac {x}{y}", r"\frac 57", id="after a space"),
        pytest.param(r"\frac{x}{y} {x}", r"\frac{x}{y} 5", id="after the arguments"),
        pytest.param(r"\frac{x+1}{2} is {x}, \alpha, {y}", r"\frac{x+1}{2} is 5, \alpha, 7", id="in a sentence"),
        pytest.param(r"an open \frac{ hides no {x}", r"an open \frac{ hides no 5", id="argument never closed"),
        pytest.param(r"C:\{x} \\ {x}", r"C:\5 \\ 5", id="backslash without letters"),
        pytest.param(r"\textbf{{x}}", r"\textbf{x}", id="doubled"),
    ],
)
def test_place_near_latex_is_filled_in(text: str, expected: str) -> None:
    assert filled(text) == expected


def test_value_is_not_looked_at_again() -> None:
    assert filled("{braces}|{{x}}") == "{x} {{y}} {obj.name}|{x}"


@given(st.text(), st.text(), st.text())
def test_any_value_arrives_as_it_is(before: str, value: str, after: str) -> None:
    marked = interpolate(before + " {v} " + after, {"v": value}, lambda found, spec: f"<{found}>")
    assert f"<{value}>" in marked or re.search(r"\\[A-Za-z]", before)


@given(
    st.lists(st.sampled_from(["{", "}", "x", "y", ":", ".", "[0]", "['a']", "\\", "\\frac", "_", "^", " ", "\n", "%"]))
)
def test_text_without_places_stays_except_for_doubled_braces(pieces: list[str]) -> None:
    text = "".join(pieces)
    shown = interpolate(text, {}, format)
    if "{{" not in text:
        assert shown == text
    assert shown.replace("{", "").replace("}", "") == text.replace("{", "").replace("}", "")
    if text.count("{{") == text.count("{") / 2 == text.count("}}") == text.count("}") / 2:
        assert shown.count("{") == text.count("{{")


@given(st.text(alphabet=st.characters(exclude_characters="{}")))
def test_escaping_gives_the_text_back(text: str) -> None:
    assert interpolate("{{" + text + "}}", NAMES, format) == "{" + text + "}"
    assert interpolate(text, NAMES, format) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("{obj.nam}", "{obj.nam}: .nam failed with AttributeError", id="attribute"),
        pytest.param("{xs[9]}", "{xs[9]}: [9] failed with IndexError: list index out of range", id="index"),
        pytest.param("{d['z']}", "{d['z']}: ['z'] failed with KeyError: 'z'", id="key"),
        pytest.param("{Out[4]}", "{Out[4]}: cell 4 has no output", id="output"),
        pytest.param("{x.real.nope[0]}", ".nope failed", id="first step that fails"),
        pytest.param("{grumpy.mood}", ".mood failed with RuntimeError: not today", id="property"),
        pytest.param("{x[0]}", "not subscriptable", id="not subscriptable"),
        pytest.param("{x:zz}", "{x:zz}: ValueError", id="format"),
        pytest.param("{xs:d}", "{xs:d}: TypeError", id="format of a list"),
    ],
)
def test_path_or_format_that_fails_is_one_line_that_names_the_place(text: str, says: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        filled(f"see {text}")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_path_that_fails_says_how_to_keep_the_braces() -> None:
    with pytest.raises(InvalidRequestError, match=re.escape("write {{obj.nam}} for the text itself")):
        filled("{obj.nam}")


def test_refusal_names_the_place_and_keeps_its_words() -> None:
    def show(value: object, spec: str) -> str:
        raise ParameterError("format", "takes head=20")

    with pytest.raises(InvalidRequestError, match=re.escape("{x:tail}: format: takes head=20")):
        interpolate("{x:tail}", NAMES, show)


def test_names_are_asked_only_for_what_stands_in_the_text() -> None:
    class Names(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            assert name == "x"
            return super().__getitem__(name)

    assert interpolate("{x} {{y}} {z}", Names(NAMES), format) == "5 {y} {z}"


@pytest.mark.parametrize(
    "text",
    [
        "{" * 100_000,
        "{x" * 50_000,
        r"\a{" * 30_000,
        "{x['" * 30_000,
        "{x:%" * 30_000,
        "{x." * 30_000,
        "{x" + ".a" * 50_000,
    ],
    ids=["braces", "names", "commands", "keys", "formats", "dots", "path"],
)
def test_hostile_text_takes_linear_time(text: str) -> None:
    assert len(interpolate(text, {"z": 1}, format)) >= len(text) // 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("{Out[7]}", "cell 7 has no output", id="no output"),
        pytest.param("{Err[7]}", "cell 7 has not failed", id="no error"),
        pytest.param("{In[7]}", "cell 7 has not run", id="not run"),
        pytest.param("{Out[3][99]}", r"\[99\] failed with IndexError", id="the output's own index"),
    ],
)
def test_cell_that_has_nothing_to_show_is_named(text: str, says: str) -> None:
    names = NAMES | {"In": [""], "Err": {}}
    with pytest.raises(InvalidRequestError, match=says):
        interpolate(text, names, format)
