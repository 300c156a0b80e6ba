"""Renders safe Markdown with the parsers that will show it, and says what of the HTML Markdown cannot have made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

_ELEMENTS = frozenset(
    [
        "p",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "ul",
        "ol",
        "li",
        "blockquote",
        "pre",
        "code",
        "em",
        "strong",
        "del",
        "a",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "hr",
        "br",
        "input",
        "span",
        "div",
        "dl",
        "dt",
        "dd",
        "details",
        "summary",
    ]
)
_ATTRIBUTES = {
    "a": {"href", "class"},
    "input": {"type", "disabled", "checked", "class"},
    "th": {"align", "style"},
    "td": {"align", "style"},
    "ol": {"start"},
    "li": {"class"},
    "code": {"class"},
    "div": {"class"},
    "span": {"class"},
    "details": {"open"},
} | {f"h{level}": {"id"} for level in range(1, 7)}

# The second rendering does as JupyterLab does: maths is cut out before parsing and put back into the HTML, attributes
# included.
_SCRIPT = r"""
const { marked } = require("marked");
const texts = JSON.parse(require("fs").readFileSync(0, "utf8"));
const code = "```[^]*?\\n```|`[^`\\n]*`", environment = "\\\\begin\\{(\\w+)\\}[^]*?\\\\end\\{\\2\\}";
const formula = new RegExp(`${code}|@@\\d+@@|(\\$\\$?)(?:(?!\\n\\n)[^$])+\\1|${environment}`, "g");
const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const asLab = (text) => {
  const kept = [];
  const cut = text.replace(formula, (all) => (all[0] === "`" ? all : `@@${kept.push(escaped(all)) - 1}@@`));
  return marked.parse(cut).replace(/@@(\d+)@@/g, (all, n) => kept[n]);
};
process.stdout.write(JSON.stringify(texts.flatMap((text) => [marked.parse(text), asLab(text)])));
"""


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.foreign: list[str] = []
        self.elements: list[str] = []
        self.texts: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        if tag not in _ELEMENTS:
            self.foreign.append(tag)
        for name, value in attrs:
            if name not in _ATTRIBUTES.get(tag, ()) or "mermaid" in str(value).lower():
                self.foreign.append(f"{tag} {name}={value!r}")
            if name == "href":
                self._note_link(value or "")

    def _note_link(self, address: str) -> None:
        if address.startswith("#"):  # nbconvert's anchors on headings
            return
        self.links.append(address)
        if not address.lower().startswith(("http://", "https://", "mailto:")):
            self.foreign.append(f"link to {address!r}")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.foreign.append(f"comment {data!r}")

    def handle_decl(self, decl: str) -> None:
        self.foreign.append(f"declaration {decl!r}")

    def unknown_decl(self, data: str) -> None:
        self.foreign.append(f"declaration {data!r}")

    def handle_pi(self, data: str) -> None:
        self.foreign.append(f"instruction {data!r}")


def read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader


def with_mistune(markdown: str) -> str:
    from nbconvert.filters.markdown_mistune import markdown2html_mistune

    return str(markdown2html_mistune(markdown))


def with_marked(markdowns: list[str]) -> list[str]:
    """Two renderings of each, plain and as JupyterLab does it; skips the test where node or marked is missing."""
    node, modules = shutil.which("node"), os.environ.get("NBLLM_TEST_MARKED")
    if node is None:
        pytest.skip("node is not installed")
    if not modules or not (Path(modules) / "marked").is_dir():
        pytest.skip("NBLLM_TEST_MARKED does not name a node_modules folder that holds marked")
    result = subprocess.run(
        [node, "-e", _SCRIPT],
        input=json.dumps(markdowns),
        env={**os.environ, "NODE_PATH": modules},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    rendered: list[str] = json.loads(result.stdout)
    return rendered
