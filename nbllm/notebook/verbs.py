"""What `%explain`, `%%fix`, `%%doc` and `%%test` ask, and what becomes of the code that they get."""

from __future__ import annotations

import ast
import difflib
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from nbllm.errors import InvalidRequestError
from nbllm.markup.characters import normalized
from nbllm.markup.code import fence
from nbllm.markup.cuts import without_middle
from nbllm.markup.fences import main_code

if TYPE_CHECKING:
    from nbllm.notebook.failures import Failure

_MAX_CODE_CHARS = 8000  # of the code of a cell that is only explained
_MAX_TRACEBACK_CHARS = 4000
_WHOLE_CELL = "Answer with the whole new code of the cell in one ```python block."
_KEEP = "Keep everything else as it is."
_STAYS = "so the cell stays as it is"


def explain_prompt(failure: Failure) -> str:
    """Asks what went wrong; traceback, code and types of the variables within some 12,000 characters."""
    return "\n\n".join(
        [
            "This code in a Jupyter notebook failed:",
            _python(without_middle(failure.source, _MAX_CODE_CHARS)),
            *_error(failure),
            "Explain what went wrong and why, and show the line that corrects it. Be brief.",
        ]
    )


def fix_prompt(code: str, failure: Failure | None) -> str:
    """Asks for `code` without its mistakes. `failure` is how it, or an earlier text of it, failed."""
    if failure is None:
        task = f"Find the mistakes in this code and correct them. {_KEEP}"
        return "\n\n".join([task, _python(code), _WHOLE_CELL])
    earlier = []
    if failure.source.strip() != code.strip():
        earlier = ["An earlier text of it failed:", _python(without_middle(failure.source, _MAX_CODE_CHARS))]
    task = f"Correct this code so that the error does not occur any more. {_KEEP}"
    return "\n\n".join([task, _python(code), *earlier, *_error(failure), _WHOLE_CELL])


def doc_prompt(code: str) -> str:
    """Asks for `code` with docstrings."""
    task = (
        "Add a docstring to every function, method and class in this code that lacks one, and a short comment where "
        "the code is hard to follow. Do not change what the code does."
    )
    return "\n\n".join([task, _python(code), _WHOLE_CELL])


def test_prompt(code: str) -> str:
    """Asks for `code` with tests below it that run in the same cell."""
    task = (
        "Write tests for this code: keep the code as it is, and below it add functions named test_... with plain "
        "assert statements for usual and unusual cases, and a call of each. Use only the standard library."
    )
    return "\n\n".join([task, _python(code), _WHOLE_CELL])


def new_code(answer_text: str, old_code: str, transform: Callable[[str], str]) -> str:
    """The code in an answer that may take the place of `old_code`.

    Args:
        transform: makes Python of a cell's magics, as IPython's `input_transformer_manager.transform_cell` does.

    Raises:
        InvalidRequestError: there is none, it is no Python, or it is what is there; says why nothing changes.
    """
    code = main_code(answer_text)
    if code is None:
        raise InvalidRequestError(f"the answer has no block of code, {_STAYS}; run it again, or try another model")
    wrong = problem(code, transform)
    if wrong:
        raise InvalidRequestError(f"the code in the answer is not valid Python ({wrong}), {_STAYS}; run it again")
    if _lines(code) == _lines(old_code):
        raise InvalidRequestError(f"the code in the answer is the same as before, {_STAYS}; say what should change")
    return code


def diff(old: str, new: str) -> str:
    """The lines that change, as a unified diff; "" if none do."""
    return "\n".join(difflib.unified_diff(_lines(old), _lines(new), "before", "after", lineterm=""))


def diff_markdown(old: str, new: str) -> str:
    """The same as a fenced block that nothing in the code can close; "" if no line changes."""
    text = diff(old, new)
    return fence(text.split("\n"), "diff") if text else ""


def _python(code: str) -> str:
    return fence(normalized(code).strip("\n").split("\n"), "python")


def _error(failure: Failure) -> list[str]:
    text = without_middle(failure.traceback, _MAX_TRACEBACK_CHARS, head=0.3)
    parts = ["The error:", fence(text.split("\n"), "text")]
    if failure.variables:
        kinds = "\n".join(f"- {name}: {kind}" for name, kind in failure.variables.items())
        parts.append(f"The variables where it failed:\n{kinds}")
    return parts


def problem(code: str, transform: Callable[[str], str]) -> str:
    """Why `code` cannot be a cell, "" if it can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of doubtful escapes, which run
            compile(transform(code), "<answer>", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError as error:
        return f"{error.msg}, line {error.lineno}" if error.lineno else str(error.msg)
    except (ValueError, OverflowError, MemoryError, RecursionError) as error:
        return str(error) or "too deeply nested"
    return ""


def _lines(code: str) -> list[str]:
    return [line.rstrip() for line in normalized(code).strip("\n").split("\n")]
