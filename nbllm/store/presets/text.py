"""What holds of the text of a preset in either form."""

from __future__ import annotations

import re

from nbllm.errors import InvalidRequestError

MAX_CHARACTERS = 1_000_000
MAX_LINES = 50_000
_SURROGATE = re.compile("[\ud800-\udfff]")


def checked_text(text: object) -> str:
    """Raises InvalidRequestError for what is too long, or cannot be written to a file."""
    if not isinstance(text, str):
        raise InvalidRequestError(f"a preset must be a text, not {type(text).__name__}")
    if len(text) > MAX_CHARACTERS:
        raise InvalidRequestError(f"the preset has {len(text):,} characters; {MAX_CHARACTERS:,} are the most")
    if text.count("\n") >= MAX_LINES:
        raise InvalidRequestError(f"the preset has more than {MAX_LINES:,} lines, which are the most")
    if _SURROGATE.search(text):
        raise InvalidRequestError("the preset has half a surrogate pair in it, which is no character; take it out")
    return text
