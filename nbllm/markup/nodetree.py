"""markdown-it's tokens as the nodes that the widget makes into elements.

Only what is named here gets into a node: a tag is one of `_TAGS`, an attribute is made by this file, an address is
one that `safe_url` allows, and text is a string among a node's children, which the page never reads as HTML.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from nbllm.markup.characters import normalized
from nbllm.markup.code import language_of
from nbllm.markup.highlighted import highlighted
from nbllm.markup.links import safe_url

if TYPE_CHECKING:
    from collections.abc import Iterable

    from markdown_it.token import Token

Node = str | list[Any]
"""A text, or `["tag", {attributes}, *children]`."""

_TAGS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "em", "strong", "s", "a"}
_TAGS |= {"table", "thead", "tbody", "tr", "th", "td"}
_MAX_DEPTH = 36  # of the nodes that are still open; three more go below for the pieces of code
_ALIGNMENT = re.compile(r"text-align:(left|center|right)")
_TASK = re.compile(r"\[([ xX])\](?=[ \t])")
_BREAK = re.compile(r"<br[ ]?/?>", re.IGNORECASE)


class NodeTree:
    """Takes tokens in their order, holds the top-level nodes in `nodes`."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        self.nodes: list[Any] = []
        self._open = [self.nodes]  # an element that is left out stands here as the one around it
        self._num_links = 0
        self._in_cell = False
        for token in tokens:
            self._take(token)

    def _take(self, token: Token) -> None:
        if token.type == "inline":
            self._tick(token.children or [])
            for child in token.children or ():
                self._take(child)
        elif token.nesting > 0:
            self._enter(token)
        elif token.nesting < 0:
            self._leave()
        else:
            self._leaf(token)

    def _enter(self, token: Token) -> None:
        parent = self._open[-1]
        attributes = _attributes(token)
        if token.hidden or token.tag not in _TAGS or attributes is None or len(self._open) > _MAX_DEPTH:
            self._open.append(parent)
            return
        node = [token.tag, attributes]
        parent.append(node)
        self._open.append(node)
        self._in_cell = token.tag in ("th", "td") or (self._in_cell and token.tag != "table")
        self._num_links += token.tag == "a"

    def _leave(self) -> None:
        node = self._open.pop()
        if node is self._open[-1]:
            return
        self._in_cell = self._in_cell and node[0] not in ("th", "td")
        if node[0] == "a":
            self._num_links -= 1
            if len(node) == 2:
                node.append(node[1]["href"])  # a link without words would not be seen

    def _leaf(self, token: Token) -> None:
        match token.type:
            case "softbreak":
                self._text("\n")
            case "hardbreak":
                self._open[-1].append(["br", {}])
            case "hr":
                self._open[-1].append(["hr", {}])
            case "code_inline":
                self._open[-1].append(["code", {}, token.content])
            case "fence" | "code_block":
                self._open[-1].append(_code_block(token))
            case "maths":
                self._open[-1].append(_formula(token.content))
            case "image":
                self._image(token)
            case _:
                self._words(normalized(token.content))  # a reference such as `&#1;` may stand for any character

    def _tick(self, inline: list[Token]) -> None:
        """Begin an item of a list with a box where its text begins with the mark of one, which is taken out."""
        if inline and inline[0].type == "text" and (mark := _TASK.match(inline[0].content)) and self._begins_item():
            self._open[-1].append(["input", {"checked": mark[1] != " "}])
            inline[0].content = inline[0].content[mark.end() :]

    def _begins_item(self) -> bool:
        node, around = self._open[-1], self._open[-2]
        if node[:1] == ["p"]:
            return len(node) == 2 and around[:1] == ["li"] and len(around) == 3
        return node[:1] == ["li"] and len(node) == 2

    def _words(self, text: str) -> None:
        """Text, in which a table's cell has its only way to break a line."""
        first, *others = _BREAK.split(text) if self._in_cell else (text,)
        self._text(first)
        for other in others:
            self._open[-1].append(["br", {}])
            self._text(other)

    def _text(self, text: str) -> None:
        node = self._open[-1]
        if len(node) > 2 and isinstance(node[-1], str):
            node[-1] += text
        elif text:
            node.append(text)

    def _image(self, token: Token) -> None:
        """A picture is never loaded, for that tells its server who reads what; a link leads to it."""
        words = "".join(_words_of(token)).strip() or "image"
        url = _address(str(token.attrs.get("src", "")))
        if url and not self._num_links:
            self._open[-1].append(["a", {"href": url}, words])
        else:
            self._text(words)


def _attributes(token: Token) -> dict[str, Any] | None:
    """The element's attributes; None for a link that may not be one."""
    if token.tag == "a":
        url = _address(str(token.attrs.get("href", "")))
        title = normalized(str(token.attrs.get("title", "")))
        return None if url is None else {"href": url, "title": title} if title else {"href": url}
    if token.tag == "ol" and "start" in token.attrs:
        return {"start": int(token.attrs["start"])}
    if token.tag in ("th", "td") and (match := _ALIGNMENT.fullmatch(str(token.attrs.get("style", "")))):
        return {"align": match[1]}
    return {}


def _address(address: str) -> str | None:
    """The address as an attribute holds it, or None; `safe_url` reads and writes Markdown's spelling of it."""
    url = safe_url(address.replace("\\", "\\\\").replace("&", "&amp;"))
    return url and url.replace("&amp;", "&")


def _code_block(token: Token) -> Node:
    language = language_of(token.info).strip(".")
    pieces = highlighted(token.content.removesuffix("\n"), language)
    spans = [["span", {"class": piece.kind}, piece.text] if piece.kind else piece.text for piece in pieces]
    attributes = {"class": "nbllm-code", "data-language": language} if language else {"class": "nbllm-code"}
    return ["pre", attributes, ["code", {}, *spans]]


def _formula(source: str) -> Node:
    display = "1" if source.startswith(("$$", "\\begin")) else "0"
    return ["span", {"class": "nbllm-math", "data-display": display}, source]


def _words_of(token: Token) -> Iterable[str]:
    """The text of an image's description, whatever elements and other images are in it."""
    for child in token.children or ():
        if child.children:
            yield from _words_of(child)
        else:
            yield "\n" if child.type in ("softbreak", "hardbreak") else normalized(child.content)
