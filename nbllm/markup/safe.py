"""A model's whole text as Markdown that a trusted output may show."""

from __future__ import annotations

from nbllm.markup.blocks import Blocks
from nbllm.markup.characters import normalized


def safe_markdown(text: str) -> str:
    """`text` as Markdown that cannot run, load or hide anything in JupyterLab, nbconvert or GitHub.

    HTML is shown as text, images become links, and links lead to http, https and mailto addresses only.
    """
    blocks = Blocks()
    *lines, last = normalized(text).split("\n")
    for line in lines:
        blocks.feed(line)
    return "\n".join(blocks.done + blocks.preview(last))
