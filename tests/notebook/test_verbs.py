from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from nbllm.errors import InvalidRequestError
from nbllm.markup.fences import fences
from nbllm.notebook import verbs
from nbllm.notebook.failures import Failure

FAILURE = Failure(
    count=3,
    cell_id=None,
    source="total(df)",
    type_name="KeyError",
    message="'a'",
    traceback="Traceback (most recent call last):\n  File \"In[3]\", line 1\nKeyError: 'a'",
    variables={"df": "pandas.DataFrame, shape (2, 1), columns 'b'"},
    explains_itself=False,
)


@pytest.fixture
def transform(shell: Any) -> Callable[[str], str]:
    found: Callable[[str], str] = shell.input_transformer_manager.transform_cell
    return found


def test_explain_prompt_has_code_traceback_and_types() -> None:
    prompt = verbs.explain_prompt(FAILURE)
    assert [fence.code for fence in fences(prompt)] == [FAILURE.source, FAILURE.traceback]
    assert "- df: pandas.DataFrame, shape (2, 1), columns 'b'" in prompt


def test_explain_prompt_is_bounded() -> None:
    huge = replace(FAILURE, source="x = 1\n" * 1_000_000, traceback="frame\n" * 1_000_000)
    prompt = verbs.explain_prompt(huge)
    assert len(prompt) < 13_000
    assert prompt.count("characters left out …]") == 2


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        (verbs.fix_prompt("x = ```", None), "mistakes"),
        (verbs.doc_prompt("x = ```"), "docstring"),
        (verbs.test_prompt("x = ```"), "assert"),
    ],
    ids=["fix", "doc", "test"],
)
def test_prompt_asks_for_the_whole_cell(prompt: str, says: str) -> None:
    assert fences(prompt)[0].code == "x = ```"
    assert says in prompt
    assert prompt.endswith("in one ```python block.")


def test_fix_prompt_has_the_error_and_the_code_once() -> None:
    prompt = verbs.fix_prompt("total(df)\n", FAILURE)
    assert [fence.code for fence in fences(prompt)] == ["total(df)", FAILURE.traceback]


def test_fix_prompt_shows_the_text_that_failed_if_it_is_another() -> None:
    prompt = verbs.fix_prompt("total(df, 1)", FAILURE)
    assert [fence.code for fence in fences(prompt)] == ["total(df, 1)", "total(df)", FAILURE.traceback]


@pytest.mark.parametrize(
    "code",
    ["x = 2", "%matplotlib inline\n!ls\nx = 2", "%%bash\nls", "await x\nx?", "re = '\\d'"],
    ids=["Python", "magics", "cell magic", "await and help", "a doubtful escape"],
)
def test_new_code_is_what_the_answer_has(transform: Callable[[str], str], code: str) -> None:
    assert verbs.new_code(f"Sure:\n```python\n{code}\n```\nDone.", "x = 1", transform) == code


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param("x = 2", "has no block of code", id="no fence"),
        pytest.param("```python\nx = (\n```", "not valid Python ('(' was never closed, line 1)", id="syntax"),
        pytest.param("```python\nif x:\n```", "not valid Python", id="cut short"),
        pytest.param("```python\n" + "-" * 20_000 + "1\n```", "not valid Python", id="too deep"),
        pytest.param("```python\n\nx = 1  \n```", "the same as before", id="unchanged"),
    ],
)
def test_unusable_answer_says_why_the_cell_stays(transform: Callable[[str], str], answer: str, says: str) -> None:
    with pytest.raises(InvalidRequestError, match="so the cell stays as it is") as caught:
        verbs.new_code(answer, "x = 1\n", transform)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_transformer_that_refuses_is_a_reason() -> None:
    def refuse(code: str) -> str:
        raise SyntaxError("not in here")

    with pytest.raises(InvalidRequestError, match="not in here"):
        verbs.new_code("```\nx\n```", "y", refuse)


def test_diff_shows_what_changes() -> None:
    assert verbs.diff("a\nb\nc\n", "a\nB\nc").split("\n") == [
        "--- before",
        "+++ after",
        "@@ -1,3 +1,3 @@",
        " a",
        "-b",
        "+B",
        " c",
    ]
    assert verbs.diff("a", "a\n") == ""
    assert verbs.diff_markdown("a", "a\n") == ""


@pytest.mark.parametrize("code", ["x = '''\n```\n<img src=x>\n```'''", "````````", "~~~\n```", "a\x1b[31m\r\n```"])
def test_diff_stays_in_its_fence(code: str) -> None:
    (found,) = fences(verbs.diff_markdown("x = 1", code))
    assert found == ("diff", verbs.diff("x = 1", code))
    assert "\x1b" not in found.code
