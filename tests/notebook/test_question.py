from __future__ import annotations

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from nbllm.notebook.question import keep_question_marks


def untouched() -> TransformerManager:
    return TransformerManager()  # type: ignore[no-untyped-call]


@pytest.fixture
def manager() -> TransformerManager:
    manager = untouched()
    manager.cleanup_transforms.append(keep_question_marks)
    return manager


@pytest.mark.parametrize(
    ("cell", "python"),
    [
        pytest.param("%chat what is x?", "get_ipython().run_line_magic('chat', 'what is x?')\n", id="question"),
        pytest.param("%chat who's there?", "get_ipython().run_line_magic('chat', \"who's there?\")\n", id="apostrophe"),
        pytest.param("%chat what??  \n", "get_ipython().run_line_magic('chat', 'what??')\n", id="two marks"),
        pytest.param("r = %chat is it?", "r = get_ipython().run_line_magic('chat', 'is it?')\n", id="assignment"),
        pytest.param(
            "if 1:\n    %chat is it?\n", "if 1:\n    get_ipython().run_line_magic('chat', 'is it?')\n", id="indented"
        ),
        pytest.param("x = 1\n%chat is it?", "x = 1\nget_ipython().run_line_magic('chat', 'is it?')\n", id="later line"),
    ],
)
def test_question_reaches_the_model(manager: TransformerManager, cell: str, python: str) -> None:
    assert manager.transform_cell(cell) == python


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param("%chat?", id="help"),
        pytest.param("%chat??", id="source"),
        pytest.param("%chat no question", id="statement"),
        pytest.param("%chatter what?", id="another magic"),
        pytest.param('text = """\n%chat what is x?\n"""', id="in a string"),
        pytest.param("%%bash\n%chat what is x?\n", id="in another cell magic"),
        pytest.param("%%chat\nwhat is x?\n", id="cell magic"),
        pytest.param("print?", id="other help"),
        pytest.param("", id="empty"),
    ],
)
def test_anything_else_is_left_to_ipython(manager: TransformerManager, cell: str) -> None:
    assert manager.transform_cell(cell) == untouched().transform_cell(cell)


def test_question_is_complete_when_enter_is_pressed(manager: TransformerManager) -> None:
    assert manager.check_complete("%chat what is x?")[0] == "complete"
