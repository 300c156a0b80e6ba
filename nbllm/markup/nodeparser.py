"""The Markdown parser of `nbllm.markup.nodes`: markdown-it without HTML, and with maths as `maths.py` finds it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from nbllm.markup.lines import HEADING
from nbllm.markup.maths import MAX_DISPLAY_LINES, OPENING, display_end, maths_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_core import StateCore
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

    BlockRule = Callable[[StateBlock, int, int, bool], bool]

DISPLAY_OPENINGS = ("$$", "\\[", "\\begin{")
FENCE = re.compile(r"`{3,}(?=[^`]*$)|~{3,}")

# Of lists and quotes; a list counts two. What is deeper than its own limit markdown-it leaves out without a word.
_MAX_LEVEL = 20
_MAX_LEVEL_OF_PARSER = _MAX_LEVEL + 4
_MAX_INLINE_LENGTH = 20_000
_OPENING = re.compile(OPENING)


def parsed(source: str) -> list[Token]:
    """markdown-it's tokens; one of type "maths" holds a formula with its delimiters.

    Reference links mean nothing: what they lead to may stand below text that was shown already. Which addresses
    links may have is left to whoever uses the tokens.
    """
    return _parser().parse(source)


def ends_in_fence(source: str) -> bool:
    """Whether the last block of `source` is a fence in no list and no quote."""
    parser = _parser()
    tokens: list[Token] = []
    parser.block.parse(source, parser, {}, tokens)
    return bool(tokens) and tokens[-1].type == "fence"


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import blockquote, list_block, table

    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": _MAX_LEVEL_OF_PARSER})
    parser.enable("strikethrough")
    parser.disable(["html_block", "html_inline", "reference", "text_join"])
    parser.validateLink = _is_link  # type: ignore[method-assign]
    parser.normalizeLink = parser.normalizeLinkText = str  # type: ignore[method-assign,assignment]
    parser.block.ruler.at("blockquote", _not_too_deep(blockquote), {"alt": ["paragraph", "blockquote", "list"]})
    parser.block.ruler.at("list", _not_too_deep(list_block), {"alt": ["paragraph", "blockquote"]})
    parser.block.ruler.before("lheading", "paragraph_as_table", table, {"alt": ["paragraph"]})  # as on GitHub
    parser.block.ruler.before("table", "display_maths", _display_maths, {"alt": ["paragraph"]})
    parser.inline.ruler.before("escape", "maths", _maths)
    parser.core.ruler.at("inline", _inline)
    parser.parse("*")  # fills its caches, which two threads at once would not do in order
    return parser


def _is_link(url: str, validator: object = None) -> bool:
    return True


def _not_too_deep(rule: BlockRule) -> BlockRule:
    """The rule, which finds nothing below `_MAX_LEVEL`: there the marks are a paragraph's text."""

    def guarded(state: StateBlock, start: int, end: int, silent: bool) -> bool:
        return state.level < _MAX_LEVEL and rule(state, start, end, silent)

    return guarded


def _inline(state: StateCore) -> None:
    """What is in paragraphs and cells; what is longer than any of a person's stays plain, for that takes long."""
    from markdown_it.token import Token

    for token in state.tokens:
        if token.type == "inline" and len(token.content) > _MAX_INLINE_LENGTH:
            token.children = [Token("text", "", 0, content=token.content)]
        elif token.type == "inline":
            token.children = state.md.inline.parse(token.content, state.md, state.env, [])


def _maths(state: StateInline, silent: bool) -> bool:
    match = _OPENING.match(state.src, state.pos, state.posMax) if state.src[state.pos] in "$\\" else None
    if not match:
        return False
    found = maths_at(state.src, state.pos, match[0])
    if found and found.end <= state.posMax:
        if not silent:
            state.push("maths", "", 0).content = found.markdown
        state.pos = found.end
        return True
    if match[0] != "$$":
        return False
    if not silent:
        state.append_pending("$$")  # both at once: the second alone could open another formula
    state.pos += 2
    return True


def _display_maths(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A paragraph of a formula over several lines, which may begin as those of lists or end a heading."""
    if state.is_code_block(start) or not _text_of(state, start).startswith(DISPLAY_OPENINGS):
        return False
    last = start + display_end(_display_lines(state, start, end), 0)
    if last == start or silent:
        return last > start
    state.line = last + 1
    state.push("paragraph_open", "p", 1)
    token = state.push("inline", "", 0)
    token.content = state.getLines(start, last + 1, state.blkIndent, False).strip()
    token.children = []
    state.push("paragraph_close", "p", -1)
    return True


def _display_lines(state: StateBlock, start: int, end: int) -> list[str]:
    """The lines from `start` on that a formula may take: none that closes the block for `TopBlocks`."""
    lines = [_text_of(state, start)]
    for number in range(start + 1, min(end, start + MAX_DISPLAY_LINES)):
        line = _text_of(state, number)
        if not line or state.sCount[number] < state.blkIndent:
            break
        if line.startswith(">") or HEADING.match(line) or FENCE.match(line):
            break
        lines.append(line)
    return lines


def _text_of(state: StateBlock, line: int) -> str:
    return state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]]
