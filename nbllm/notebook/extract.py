"""`-x`: the code of an answer on its way into the next cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbllm.markup.fences import PYTHON, main_fence

if TYPE_CHECKING:
    from nbllm.notebook.next_input import NextInput

_MAGICS = {
    "bash": "bash",
    "sh": "bash",
    "shell": "bash",
    "zsh": "bash",
    "javascript": "javascript",
    "js": "javascript",
    "html": "html",
    "svg": "svg",
    "latex": "latex",
    "tex": "latex",
}
"""What runs a cell of another language in IPython."""


def extract(text: str, next_input: NextInput, cell_id: str | None) -> str:
    """Put the code into the next cell, and return what is to be said about it, "" for nothing."""
    found = main_fence(text)
    if found is None:
        return "the answer has no code to put into the next cell"
    language = found.language.lower()
    magic = _MAGICS.get(language)
    inserted = next_input.insert(f"%%{magic}\n{found.code}" if magic else found.code, cell_id)
    if inserted == "unchanged":
        return "the cell that an earlier run put below has the same code"
    return "" if magic or language in PYTHON else f"the code in the next cell is {language}, not Python"
