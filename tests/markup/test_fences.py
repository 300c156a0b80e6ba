from __future__ import annotations

import re

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from nbllm.markup.fences import Fence, fences, main_code

REFERENCE = MarkdownIt("commonmark").disable(["html_block", "reference"])
PIECES = ["```", "````", "~~~", "```python", "~~~ py x", "\n", "\n", "\n\n", " ", "   ", "- ", "* ", "1. ", "2) ", "> "]
PIECES += ["a", "x = 1", "-", "***", "===", "# h", "`", "+", "  - ", "10. "]
MIXES = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("```python\nx = 1\n```", [("python", "x = 1")], id="backticks"),
        pytest.param("~~~py extra words\nx\n~~~~~\n", [("py", "x")], id="tildes, longer closing"),
        pytest.param("````\n```\nx\n```\n````", [("", "```\nx\n```")], id="fence in a fence"),
        pytest.param("```\nx\n~~~\ny\n```", [("", "x\n~~~\ny")], id="other mark closes nothing"),
        pytest.param("```\nx\n``` y\n```", [("", "x\n``` y")], id="closing fence has no info"),
        pytest.param("   ```\n   x\n     y\n   ```", [("", "x\n  y")], id="indented by three"),
        pytest.param("    ```\n    x\n    ```", [], id="indented by four is code"),
        pytest.param("text\n```\nx\n    ```\n```", [("", "x\n    ```")], id="closing indented by four"),
        pytest.param("```python print(1)```\n\ntext", [], id="span in a line"),
        pytest.param("1. Do:\n\n   ```sh\n   ls\n\n   pwd\n   ```\n", [("sh", "ls\n\npwd")], id="in a numbered list"),
        pytest.param("- ```py\n  x\n  ```\n- y", [("py", "x")], id="on a bullet"),
        pytest.param("- a\n  - b\n\n    ```\n    x\n    ```", [("", "x")], id="in a nested list"),
        pytest.param("- ```\n  x\ny", [("", "x")], id="the list item ends before the fence"),
        pytest.param("> ```\n> x\n> ```\n", [("", "x")], id="in a quote"),
        pytest.param("> ```\n> x\ny\n", [("", "x")], id="the quote ends before the fence"),
        pytest.param("```python\nx = 1\nfor", [("python", "x = 1\nfor")], id="interrupted"),
        pytest.param("```python", [("python", "")], id="interrupted at once"),
        pytest.param("```\n\n\n```", [("", "\n")], id="blank lines"),
        pytest.param("```\r\nx\r\n\ty\r\n```\r\n", [("", "x\n\ty")], id="other line breaks, tabs"),
        pytest.param("- ```\n\tx\n  ```", [("", "  x")], id="a part of a tab"),
        pytest.param("<details>\n```\nx\n```\n</details>", [("", "x")], id="in HTML"),
        pytest.param("a\n```x\n1\n```\nb\n~~~\n2", [("x", "1"), ("", "2")], id="two"),
        pytest.param("", [], id="nothing"),
    ],
)
def test_fences_are_those_of_commonmark(text: str, expected: list[tuple[str, str]]) -> None:
    assert fences(text) == [Fence(*found) for found in expected]


@given(MIXES)
@example("1. \n   \n    ~~~~")
@example("> a\n```\nx")
@example("a\n2. ```\nx")
@settings(max_examples=300, deadline=None)
def test_mix_gives_the_fences_of_the_reference(text: str) -> None:
    assume(not re.search(r" {4,}>", text))  # there markdown-it goes on with a quote, which the specification denies
    expected = [token for token in REFERENCE.parse(text) if token.type == "fence"]
    assert [(found.language, found.code.rstrip()) for found in fences(text)] == [
        (" ".join(token.info.split()[:1]), token.content.rstrip()) for token in expected
    ]


@given(st.text(st.sampled_from("`~->* \t\n1.a#=<") | st.characters(codec=None), max_size=200))
@settings(deadline=None)
def test_any_text_has_fences_or_none(text: str) -> None:
    for fence in fences(text):
        fence.code.encode()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("> " * 50_000 + "\n" * 30_000, id="quotes"),
        pytest.param("- " * 50_000 + "a" + "\n" * 30_000, id="lists"),
        pytest.param("```\n" * 30_000, id="fences"),
        pytest.param("`" * 300_000, id="backticks"),
        pytest.param("- \t" * 60_000, id="tabs"),
        pytest.param(("- " * 2000 + "a\n") * 30, id="almost rules"),
    ],
)
@pytest.mark.timeout(20)
def test_hostile_text_takes_linear_time(text: str) -> None:
    """What is quadratic takes minutes."""
    fences(text)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        pytest.param("no code", None, id="none"),
        pytest.param("```\n\n```", None, id="only an empty one"),
        pytest.param("```bash\nls\n```", "ls", id="one of another language"),
        pytest.param("```Python\n\na\n```\n```python\nb\n```", "a\n\nb", id="Python in parts"),
        pytest.param("```python\na\n```\nprints\n```\n1\n2\n```", "a", id="Python and its output"),
        pytest.param("```\na\n```\n```\nb\n```", "a\n\nb", id="none says its language"),
        pytest.param("```python\na\n```\n```python\na\n```", "a", id="the same twice"),
        pytest.param("```bash\nls\n```\n```sql\nselect 1\n```", "select 1", id="the longest of others"),
    ],
)
def test_main_code_is_what_a_person_would_copy(text: str, code: str | None) -> None:
    assert main_code(text) == code


def test_main_code_of_other_languages() -> None:
    assert main_code('```python\nimport json\n```\n```json\n{"a": 1}\n```', ("json",)) == '{"a": 1}'
