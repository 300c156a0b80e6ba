"""Text that is too long, without its middle."""

from __future__ import annotations


def without_middle(text: str, max_chars: int, *, head: float = 0.5) -> str:
    """`text`, or about `max_chars` of its beginning and end and a line between them that says how much is left out.

    Args:
        head: the share of the beginning.
    """
    if len(text) <= max_chars:
        return text
    first = text[: int(max_chars * head)]
    last = text[len(text) - (max_chars - len(first)) :] if len(first) < max_chars else ""
    first = first[: _at_line_end(first)]
    last = last[len(last) - _at_line_end(last[::-1]) :]
    left_out = len(text) - len(first) - len(last)
    return "\n".join(part for part in (first, f"[… {left_out:,} characters left out …]", last) if part)


def _at_line_end(text: str) -> int:
    """Where the last line of `text` begins, so that no line is cut; its length if too little would remain."""
    end = text.rfind("\n")
    return end if end >= len(text) // 2 else len(text)
