"""A model's whole text as Markdown that a trusted output may show."""

from __future__ import annotations

from nbllm.markup.blocks import Blocks
from nbllm.markup.characters import normalized

# In entities no parser of Markdown finds mark-up, but JupyterLab looks for maths in the page that was made of it; it
# finds none where an element ends the text.
_ENTITIES = {char: f"<span>&#{ord(char)};</span>" for char in "$\\"}


def safe_markdown(text: str) -> str:
    """`text` as Markdown that cannot run, load or hide anything in JupyterLab, nbconvert or GitHub.

    HTML is shown as text, images become links, and links lead to http, https and mailto addresses only.
    """
    blocks = Blocks()
    *lines, last = normalized(text).split("\n")
    for line in lines:
        blocks.feed(line)
    return "\n".join(blocks.done + blocks.preview(last))


def literal_markdown(text: str, plain: str = " ,…→·") -> str:
    """Markdown, for a line or a table's cell, in which every character of `text` means itself.

    Args:
        plain: the characters beside letters and digits that need no entity where this stands.
    """
    return "".join(char if char.isalnum() or char in plain else _ENTITIES.get(char, f"&#{ord(char)};") for char in text)
