"""The shapes that `--format` gives an answer: Markdown, plain text, code, JSON, or a page of HTML in a sealed frame."""

from __future__ import annotations

import html
import json
import re
from typing import Protocol

from nbllm.markup.characters import normalized, plain_text
from nbllm.markup.code import fence
from nbllm.markup.fences import main_code
from nbllm.markup.stream import SafeStream

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:"
# Such characters cannot be sent to a front end, or count as ends of lines there; in JSON an escape says the same.
_NOT_SHOWN = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# Chromium connects to the host of a frame before the policy forbids the request, and no policy covers a preconnect.
_CONNECTS = re.compile(r"<(?=(?:i?frame|fencedframe|portal|object|embed|applet|link)[\s/>])", re.IGNORECASE)


class Body(Protocol):
    """An answer's text on its way to the screen."""

    def push(self, text: str) -> None: ...
    def markdown(self) -> str | None:
        """Safe Markdown of what came; None where the plain text is to be shown as it is."""

    def finished(self) -> dict[str, str]:
        """What the whole answer is in other types than Markdown and plain text, and the plain text if it differs."""


def body(format_name: str) -> Body:
    """A new body of one of `arguments.FORMATS`."""
    kinds: dict[str, type[Body]] = {"markdown": _Markdown, "text": _Text, "code": _Code, "json": _Json, "html": _Html}
    return kinds[format_name]()


class _Markdown:
    def __init__(self) -> None:
        self._stream = SafeStream()

    def push(self, text: str) -> None:
        self._stream.push(text)

    def markdown(self) -> str:
        return self._stream.markdown()

    def finished(self) -> dict[str, str]:
        return {}


class _Whole:
    """Bodies that are shown as one block."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        return normalized("".join(self._parts))

    def push(self, text: str) -> None:
        self._parts.append(text)

    def finished(self) -> dict[str, str]:
        return {}


class _Text(_Whole):
    def markdown(self) -> None:
        return None


class _Code(_Whole):
    """The code alone, once it is there; prose around it is left out."""

    @property
    def _code(self) -> str:
        return main_code(self.text) or self.text

    def markdown(self) -> str:
        return fence(self._code.rstrip().split("\n"), "python")

    def finished(self) -> dict[str, str]:
        return {"text/plain": plain_text(self._code).rstrip()}


class _Json(_Whole):
    def markdown(self) -> str:
        return fence(self._pretty().split("\n"), "json")

    def finished(self) -> dict[str, str]:
        return {"text/plain": plain_text(self._pretty())}

    def _pretty(self) -> str:
        try:
            found = json.loads(main_code(self.text, ("json", "")) or self.text)
            pretty = json.dumps(found, indent=2, ensure_ascii=False)
        except (ValueError, RecursionError):
            return self.text.strip()
        return _NOT_SHOWN.sub(lambda found: f"\\u{ord(found[0]):04x}", pretty)


class _Html(_Whole):
    """The page runs in a frame that may neither run scripts nor load anything, nor see the notebook around it."""

    def markdown(self) -> str:
        return fence(self._page.split("\n"), "html")

    def finished(self) -> dict[str, str]:
        head = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><base href="about:blank">'
        sealed = head + _CONNECTS.sub("<no-", self._page)
        frame = (
            f'<iframe sandbox="" srcdoc="{html.escape(sealed)}" width="100%" height="400" style="border:0"></iframe>'
        )
        # A notebook that is not trusted shows no frame.
        source = f"<details><summary>Source</summary><pre>{html.escape(self._page)}</pre></details>"
        return {"text/html": frame + source}

    @property
    def _page(self) -> str:
        return (main_code(self.text, ("html", "")) or self.text).strip()
