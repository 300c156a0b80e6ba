"""The store of idle prefixes: finds the longest, stays within its bytes, drops the oldest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nbllm.engine.prefixes import PrefixStore
from nbllm.engine.sequence import common_prefix

_TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=12)


def test_longest_is_the_entry_that_shares_most() -> None:
    store = PrefixStore(100)
    store.put([1, 2, 3], b"a")
    store.put([1, 2, 4, 5], b"b")
    entry, shared = store.longest([1, 2, 4, 9])
    assert entry is not None
    assert (entry.state, shared) == (b"b", 3)
    assert store.longest([7]) == (None, 0)


def test_longer_entry_replaces_its_own_beginning() -> None:
    store = PrefixStore(100)
    store.put([1, 2], b"aa")
    store.put([1, 2, 3], b"bbb")
    assert (len(store), store.num_bytes) == (1, 3)


def test_least_recently_used_goes_first() -> None:
    store = PrefixStore(2)
    store.put([1], b"a")
    store.put([2], b"b")
    entry, _ = store.longest([1])
    assert entry is not None
    store.touch(entry)
    store.put([3], b"c")
    assert store.longest([2]) == (None, 0)
    assert store.longest([1])[1] == 1


def test_state_above_the_whole_budget_is_not_kept() -> None:
    store = PrefixStore(2)
    store.put([1], b"a")
    store.put([2], b"bbb")
    assert (len(store), store.num_bytes) == (1, 1)


def test_touch_of_a_dropped_entry_is_harmless() -> None:
    store = PrefixStore(1)
    store.put([1], b"a")
    entry, _ = store.longest([1])
    store.put([2], b"b")
    assert entry is not None
    store.touch(entry)
    assert len(store) == 1


@given(st.lists(st.tuples(_TOKENS, st.integers(0, 6)), max_size=30), _TOKENS)
def test_store_is_never_above_its_bytes_and_finds_the_best(puts: list[tuple[list[int], int]], asked: list[int]) -> None:
    store = PrefixStore(10)
    for tokens, size in puts:
        store.put(tokens, bytes(size))
        assert store.num_bytes <= 10
        assert store.longest(tokens)[1] == len(tokens)
    entry, shared = store.longest(asked)
    assert shared == (common_prefix(tuple(asked), entry.tokens) if entry else 0)
    store.clear()
    assert (len(store), store.num_bytes) == (0, 0)
