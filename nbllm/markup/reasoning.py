"""A model's thinking, folded away above its answer."""

from __future__ import annotations

from nbllm.markup.safe import safe_markdown


def fold_reasoning(reasoning: str, *, done: bool) -> str:
    """The thinking as safe Markdown in a fold: open while the model thinks, closed when `done`, "" when empty."""
    return folded(safe_markdown(reasoning), done=done) if reasoning.strip() else ""


def folded(markdown: str, *, done: bool) -> str:
    """The fold around Markdown that is safe already, such as a `SafeStream`'s."""
    opening = "<details><summary>Thoughts</summary>" if done else "<details open><summary>Thinking…</summary>"
    # Blank lines end the blocks of HTML, so that Markdown between them is Markdown.
    return f"{opening}\n\n{markdown.strip(chr(10))}\n\n</details>\n\n"
