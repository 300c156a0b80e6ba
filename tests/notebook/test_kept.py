from __future__ import annotations

import pytest

from nbllm.errors import InvalidRequestError
from nbllm.notebook.kept import check_nothing_lost, check_only_docstrings

OLD = "import math\n\ndef area(r):\n    return math.pi * r ** 2\n\nclass Empty:\n    pass\n"
NEW = OLD.replace("(r):\n", '(r):\n    """The area."""\n').replace("    pass", '    """Nothing."""')


def plain(code: str) -> str:
    return code


def test_docstrings_and_comments_may_come() -> None:
    check_only_docstrings(OLD, '"""Circles."""\n' + NEW + "# done\n", plain)


@pytest.mark.parametrize(
    "new",
    [
        pytest.param(NEW.replace("** 2", "** 3"), id="another number"),
        pytest.param(NEW.replace("import math\n", ""), id="a line less"),
        pytest.param(NEW + "print(area(1))\n", id="a line more"),
    ],
)
def test_anything_else_is_refused(new: str) -> None:
    with pytest.raises(InvalidRequestError, match="more than docstrings"):
        check_only_docstrings(OLD, new, plain)


def test_tests_may_come_below() -> None:
    check_nothing_lost(OLD, OLD + "def test_area():\n    assert area(0) == 0\n\ntest_area()\n", plain)


def test_a_lost_statement_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="should test"):
        check_nothing_lost(OLD, OLD.replace("math.pi", "3.14"), plain)
