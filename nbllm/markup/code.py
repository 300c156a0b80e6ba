"""Code from a model: the one place where its text may stand verbatim, and only where no parser can doubt it."""

from __future__ import annotations

import re
from collections.abc import Sequence

# What would do harm, or pair with something outside, if some parser did not take the span for code.
_UNSAFE_IN_SPAN = re.compile(r"[<&$|\\`\n]|\]\(|\]:|!\[|@@|~~~|://|www\.|xmpp:", re.IGNORECASE)
_AS_ENTITIES = {ord(character): f"&#{ord(character)};" for character in "<>&\"'`*_[]()!\\$|~#:@.+{}\t\n"}
_BACKTICKS = re.compile("`+")
_NOT_IN_LANGUAGE = re.compile(r"[^A-Za-z0-9_+#.-]")
_MAX_LANGUAGE_LENGTH = 40


def code_span(code: str) -> str:
    """One line of code within a paragraph."""
    if _UNSAFE_IN_SPAN.search(code):
        return f"<code>{code.translate(_AS_ENTITIES)}</code>"
    return f"`{code}`"


def fence(lines: Sequence[str], info: str = "") -> str:
    """A fenced block for the top level of the document, where nothing around it can reach into it."""
    code = "\n".join(lines)
    mark = "`" * max(3, 1 + max(map(len, _BACKTICKS.findall(code)), default=0))
    return f"{mark}{_language(info)}\n{code}\n{mark}" if lines else f"{mark}{_language(info)}\n{mark}"


def preformatted(lines: Sequence[str]) -> str:
    """A code block in one line of HTML, for lists and quotes: parsers disagree on where a fence in them ends."""
    code = "\n".join(lines).translate(_AS_ENTITIES)
    return f"<pre><code>{code}&#10;</code></pre>"


def language_of(info: str) -> str:
    """The first word after a fence's opening, without what no language has in its name."""
    words = info.split(maxsplit=1)
    return _NOT_IN_LANGUAGE.sub("", words[0])[:_MAX_LANGUAGE_LENGTH] if words else ""


def _language(info: str) -> str:
    language = language_of(info)
    # nbconvert writes a mermaid block into the page unescaped, and JupyterLab runs it
    return "text" if language.lower().startswith("mermaid") else language
