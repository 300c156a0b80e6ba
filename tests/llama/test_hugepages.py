"""Which memory is new, and that only a context's KV memory is advised on."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.llama import hugepages
from nbllm.llama.hugepages import KvAdvice, new_ranges

_LINE = "llama_kv_cache:        CPU KV buffer size =   360.00 MiB"
_SIZE = 360 << 20
_BEFORE = "7f0000000000-7f0000100000 rw-p 00000000 00:00 0 \n"


def _as_ranges(points: set[int]) -> list[tuple[int, int]]:
    starts = sorted(point for point in points if point - 1 not in points)
    stops = sorted(point + 1 for point in points if point + 1 not in points)
    return list(zip(starts, stops, strict=True))


_POINTS = st.sets(st.integers(0, 30))


@given(_POINTS, _POINTS)
def test_new_ranges_is_the_difference(before: set[int], now: set[int]) -> None:
    found = list(new_ranges(_as_ranges(before), _as_ranges(now)))
    assert {point for start, stop in found for point in range(start, stop)} == now - before
    assert all(start < stop for start, stop in found)


@pytest.fixture
def maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    policy, maps = tmp_path / "enabled", tmp_path / "maps"
    policy.write_text("always [madvise] never\n")
    maps.write_text(_BEFORE)
    monkeypatch.setattr(hugepages, "_POLICY", policy)
    monkeypatch.setattr(hugepages, "_MAPS", maps)
    return maps


@pytest.fixture
def advised(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(hugepages, "_advise", lambda start, stop: calls.append((start, stop)))
    return calls


def _region(start: int, size: int, rest: str = "rw-p 00000000 00:00 0") -> str:
    return f"{start:x}-{start + size:x} {rest} \n"


def test_new_memory_of_that_size_is_advised_on(maps: Path, advised: list[tuple[int, int]]) -> None:
    advice = KvAdvice()
    start = 0x7E0000000000
    others = _region(start - (1 << 40), _SIZE - 4096) + _region(start - (2 << 40), 2 * _SIZE, "r--p 00000000 00:00 0")
    files = _region(start - (3 << 40), 2 * _SIZE, "rw-p 00000000 08:01 77 /a file")
    maps.write_text(files + others + _region(start, _SIZE + 4096) + _BEFORE)
    advice("llama_context: n_ctx = 8")
    assert advised == []
    advice(_LINE)
    assert advised == [(start, start + _SIZE + 4096)]
    advice(_LINE)
    assert len(advised) == 1


def test_only_the_new_part_of_a_joined_region_is_advised_on(maps: Path, advised: list[tuple[int, int]]) -> None:
    large = _region(0x7E0000000000, 1 << 30)
    maps.write_text(large)
    advice = KvAdvice()
    maps.write_text(_region(0x7E0000000000 - _SIZE, _SIZE + (1 << 30)))
    advice(_LINE)
    assert advised == [(0x7E0000000000 - _SIZE, 0x7E0000000000)]


@pytest.mark.parametrize("policy", ["[always] madvise never", "always madvise [never]", None])
def test_nothing_is_done_under_another_policy(maps: Path, advised: list[tuple[int, int]], policy: str | None) -> None:
    if policy is None:
        hugepages._POLICY.unlink()
    else:
        hugepages._POLICY.write_text(policy)
    advice = KvAdvice()
    maps.write_text(_region(0x7E0000000000, _SIZE) + _BEFORE)
    advice(_LINE)
    assert advised == []


def test_nothing_is_done_where_the_map_is_not_told(maps: Path, advised: list[tuple[int, int]]) -> None:
    maps.unlink()
    advice = KvAdvice()
    maps.write_text(_region(0x7E0000000000, _SIZE))
    advice(_LINE)
    assert advised == []


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("llama_kv_cache:      CUDA0 KV buffer size =   360.00 MiB", id="of a GPU"),
        pytest.param("llama_kv_cache:        CPU KV buffer size =     2.00 MiB", id="small"),
        pytest.param("llama_context:        CPU compute buffer size =   360.00 MiB", id="not KV"),
    ],
)
def test_other_buffers_are_left(maps: Path, advised: list[tuple[int, int]], line: str) -> None:
    advice = KvAdvice()
    maps.write_text(_region(0x7E0000000000, _SIZE) + _BEFORE)
    advice(line)
    assert advised == []
