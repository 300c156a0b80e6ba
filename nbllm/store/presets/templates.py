"""Chat templates of a preset: Jinja, or Ollama's, which are Go's text/template and which nothing here renders."""

from __future__ import annotations

import re

GO_NOTE = "its template is in Ollama's language, which is not used: the model file's own chat template is"
_GO_ACTION = re.compile(
    r"\{\{-?\s*(?:"
    r"[.$]"  # a field or a variable, as in {{ .Prompt }}
    r"|/\*"  # a comment
    r"|(?:else|end|break|continue)\s*-?\}\}"
    r"|(?:if|else\s+if|range|with|define|block|template)\s+[\w.$\"(]"
    r"|(?:len|index|slice|json|print|printf|println|html|js|urlquery|currentDate|toJson)\s+[.$\"(]"
    r"|(?:eq|ne|lt|le|gt|ge|and|or|not)\s+[.$\"(]"
    r")"
)
_JINJA_STATEMENT = "{%"


def split(text: str) -> tuple[str | None, str | None]:
    """The template as Jinja, or as Ollama's, and None for the other."""
    is_go = _JINJA_STATEMENT not in text and _GO_ACTION.search(text) is not None
    return (None, text) if is_go else (text, None)
