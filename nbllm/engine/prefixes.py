"""Evaluated prefixes that nobody runs at the moment, kept in host memory and dropped oldest first.

In the pool they would slow every step; moved out and back they cost a millisecond for ten megabytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence as Tokens
from typing import NamedTuple

from nbllm.engine.sequence import common_prefix


class StoredPrefix(NamedTuple):
    """Tokens, and the state that the KV memory had after them."""

    tokens: tuple[int, ...]
    state: bytes


class PrefixStore:
    """Args: max_bytes: states are dropped, least recently used first, to stay below it."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[tuple[int, ...], StoredPrefix] = OrderedDict()
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def longest(self, tokens: Tokens[int]) -> tuple[StoredPrefix | None, int]:
        """The entry that shares most leading tokens, and how many."""
        wanted = tuple(tokens)
        best, length = None, 0
        for entry in self._entries.values():
            shared = common_prefix(wanted, entry.tokens)
            if shared > length:
                best, length = entry, shared
        return best, length

    def touch(self, entry: StoredPrefix) -> None:
        """Note that the entry was of use."""
        if entry.tokens in self._entries:
            self._entries.move_to_end(entry.tokens)

    def put(self, tokens: Tokens[int], state: bytes) -> None:
        """Keep a prefix. What it makes superfluous goes, and then what was not used for longest."""
        entry = StoredPrefix(tuple(tokens), state)
        if len(state) > self._max_bytes:
            return
        for other in [old for old in self._entries if old == entry.tokens[: len(old)]]:
            self._drop(other)
        self._entries[entry.tokens] = entry
        self.num_bytes += len(state)
        while self.num_bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        self._entries.clear()
        self.num_bytes = 0

    def _drop(self, tokens: tuple[int, ...]) -> None:
        self.num_bytes -= len(self._entries.pop(tokens).state)
