from __future__ import annotations

import html

import pytest

from nbllm.notebook.arguments import FORMATS
from nbllm.notebook.formats import body

ATTACK = "<img src=x onerror=alert(1)>"


def made(format_name: str, *pieces: str) -> tuple[str | None, dict[str, str]]:
    shaped = body(format_name)
    for piece in pieces:
        shaped.push(piece)
    return shaped.markdown(), shaped.finished()


def test_markdown_is_made_safe() -> None:
    assert made("markdown", "**b** ", ATTACK) == ("**b** &lt;img src=x onerror=alert(1)>", {})


def test_text_is_no_markdown() -> None:
    assert made("text", "*a*", " b") == (None, {})


def test_code_leaves_out_the_prose() -> None:
    markdown, others = made("code", "Here:\n\n```python\nx = 1\n```\nDone.")
    assert (markdown, others) == ("```python\nx = 1\n```", {"text/plain": "x = 1"})


def test_code_without_a_fence_is_the_whole_answer() -> None:
    assert made("code", "x = ", "1\n")[0] == "```python\nx = 1\n```"


@pytest.mark.parametrize("text", ['{"a": [1, 2]}', 'Sure:\n```json\n{"a": [1, 2]}\n```'], ids=["bare", "fenced"])
def test_json_is_indented(text: str) -> None:
    pretty = '{\n  "a": [\n    1,\n    2\n  ]\n}'
    assert made("json", text) == (f"```json\n{pretty}\n```", {"text/plain": pretty})


@pytest.mark.parametrize("text", ['{"a": ', "[" * 100_000, "no JSON"])
def test_json_that_is_none_stays_as_it_is(text: str) -> None:
    assert made("json", text)[0] == f"```json\n{text.strip()}\n```"


def test_html_is_sealed() -> None:
    markdown, others = made("html", f"```html\n<h1>Hi</h1>{ATTACK}\n```")
    assert markdown == f"```html\n<h1>Hi</h1>{ATTACK}\n```"
    frame = others["text/html"]
    assert frame.startswith('<iframe sandbox="" srcdoc="')
    frame, after = frame.split("</iframe>")
    assert frame.count("<") == 1
    inside = html.unescape(frame)
    assert ATTACK not in after
    assert html.escape(ATTACK) in after
    assert "default-src 'none'" in inside
    assert f"<h1>Hi</h1>{ATTACK}" in inside


@pytest.mark.parametrize(
    "element",
    ["<iframe src=//a.b>", "<FRAME\nsrc=//a.b>", "<object/data=//a.b>", "<embed src=//a.b>", "<LINK rel=preconnect>"],
)
def test_html_has_no_element_that_connects_before_the_policy_forbids_it(element: str) -> None:
    frame = made("html", f"<p>{element}</p>")[1]["text/html"]
    assert f"<p><no-{element[1:]}</p>" in html.unescape(frame)


def test_html_keeps_elements_of_similar_names() -> None:
    page = "<framework>a</framework> <links> i < link </iframe>"
    assert page in html.unescape(made("html", page)[1]["text/html"])


def test_json_escapes_what_a_front_end_cannot_show() -> None:
    text = '{"a": "\\ud800\\u2028\\u0085é"}'
    pretty = '{\n  "a": "\\ud800\\u2028\\u0085é"\n}'
    assert made("json", text) == (f"```json\n{pretty}\n```", {"text/plain": pretty})


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_fence_in_the_answer_cannot_leave_its_own(format_name: str) -> None:
    markdown = made(format_name, "````\n```\n", ATTACK)[0]
    outside = "" if markdown is None else markdown.split("\n")[-1]
    assert "<" not in outside
