from __future__ import annotations

from dataclasses import replace

import pytest

from nbllm.session.tuning.candidates import expected_bytes, formats, groups
from nbllm.session.tuning.setting import Setting
from tests.session.tuning.laboratory import Q4_1


@pytest.mark.parametrize(
    ("quantization", "size_bytes", "expected"),
    [
        ("F16", 16 * 10**9, ["Q8_0", "Q4_1", "Q4_0"]),
        ("Q8_0", 8 * 10**9, ["Q4_1", "Q4_0"]),
        ("Q4_1", 10**8, ["Q8_0", "Q4_0"]),
        ("Q4_1", 5 * 10**9, ["Q4_0"]),
        ("Q4_K_M", 5 * 10**9, ["Q4_0"]),
        ("Q4_0", 4 * 10**9, []),
        ("Q4_0", 10**8, ["Q8_0"]),
        ("Q2_K", 10**8, []),
        ("", 10**8, []),
    ],
)
def test_formats_have_no_more_bits_than_are_of_use(quantization: str, size_bytes: int, expected: list[str]) -> None:
    assert formats(replace(Q4_1, quantization=quantization, size_bytes=size_bytes)) == expected


@pytest.mark.parametrize(
    ("quantization", "kind", "real"), [("Q4_1", "Q8_0", 144_811_072), ("Q4_1", "Q4_0", 91_726_912)]
)
def test_expected_size_is_enough_for_the_bundled_model(quantization: str, kind: str, real: int) -> None:
    model = replace(Q4_1, quantization=quantization, size_bytes=98_362_432)
    assert real <= expected_bytes(model, kind) <= 1.5 * real


@pytest.mark.parametrize(
    ("cores", "threads"), [(1, []), (2, [1]), (4, [3, 2]), (16, [12, 8])], ids=["1", "2", "4", "16"]
)
def test_fewer_threads_than_cores_are_tried(cores: int, threads: list[int]) -> None:
    counts, *_ = groups(cores, on_gpu=False)
    assert [setting.threads for setting in counts(Setting(weights="Q8_0"))] == threads


def test_groups_vary_one_thing_of_the_best() -> None:
    best = Setting(weights="Q8_0", threads=3)
    for group in groups(4, on_gpu=False)[1:]:
        assert all(setting.weights == "Q8_0" and setting.threads == 3 for setting in group(best))
