"""A model's Markdown as a tree of nodes: what the widget shows of it, and all that it can.

No HTML is made anywhere. A block of the text is parsed once, when no later text can change it.
"""

from __future__ import annotations

from nbllm.markup.characters import NormalizedStream
from nbllm.markup.nodeparser import parsed
from nbllm.markup.nodetree import Node, NodeTree
from nbllm.markup.topblocks import TopBlocks

__all__ = ["Node", "NodeStream", "nodes"]


def nodes(text: str) -> list[Node]:
    """The blocks of a whole text, each a node."""
    stream = NodeStream()
    return [*stream.push(text), *stream.finish()]


class NodeStream:
    """`nodes` of a text that is still arriving, cut anywhere: all that was given out together is what it gives."""

    def __init__(self) -> None:
        self._blocks = TopBlocks()
        self._normalized = NormalizedStream()

    def push(self, text: str) -> list[Node]:
        """Take the next piece; the blocks that are closed by it."""
        return _nodes_of(self._blocks.push(self._normalized.push(text)))

    @property
    def tail(self) -> str:
        """The source of what is not closed yet."""
        return self._blocks.tail

    def finish(self) -> list[Node]:
        """The blocks that are still open, as they are if no more text comes."""
        return _nodes_of(self._blocks.finish())


def _nodes_of(sources: list[str]) -> list[Node]:
    return [node for source in sources for node in NodeTree(parsed(source)).nodes]
