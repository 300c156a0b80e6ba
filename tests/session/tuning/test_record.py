from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.session.tuning.measurement import Measurement, Speeds
from nbllm.session.tuning.record import Record, read, written
from nbllm.session.tuning.setting import Setting
from nbllm.store.tunings import Place

_TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)
_SETTINGS = st.builds(
    Setting,
    weights=st.sampled_from(["", "Q8_0"]),
    threads=st.none() | st.integers(1, 64),
    max_batch=st.none() | st.just(128),
    flash_attention=st.none() | st.booleans(),
    kv_type=st.none() | st.just("q8_0"),
)
_SPEED = st.integers(1, 10**6).map(float)
_MEASURED = st.builds(
    Measurement,
    setting=_SETTINGS,
    runs=st.lists(st.builds(Speeds, _SPEED, _SPEED, _SPEED), max_size=3).map(tuple),
    divergence=st.none() | st.floats(0, 10),
    size_bytes=st.integers(0, 10**12),
    problem=_TEXTS,
)
_RECORDS = st.builds(
    Record,
    model=_TEXTS,
    machine=_TEXTS,
    on_gpu=st.booleans(),
    measured=st.lists(_MEASURED, max_size=3).map(tuple),
    chosen=st.none() | _SETTINGS,
)


@given(record=_RECORDS)
def test_record_is_read_as_it_was_written(record: Record, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "record.toml"
    path.write_bytes(written(record))
    assert read(path) == record


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"version = 2\n",
        b"version = 1\n",
        b'version = 1\nmodel = "a"\nmachine = "b"\non_gpu = false\n[chosen]\nweights = 3\n',
        b'version = 1\nmodel = "a"\nmachine = "b"\non_gpu = false\n[chosen]\nthreads = true\n',
        b'version = 1\nmodel = "a"\nmachine = "b"\non_gpu = false\nmeasured = 7\n',
        b'version = 1\nmodel = "a"\nmachine = "b"\non_gpu = false\n[[measured]]\nweights = ""\n',
    ],
)
def test_damaged_record_counts_as_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "record.toml"
    path.write_bytes(data)
    assert read(path) is None


def test_record_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert read(tmp_path / "record.toml") is None


def test_place_names_model_and_machine(tmp_path: Path) -> None:
    place = Place.of(tmp_path, 98, "0123456789abcdef" * 4, "fedcba98")
    assert place.path.name == "98-0123456789abcdef-fedcba98.toml"
    assert place.weights("Q8_0").name == "0123456789abcdef-Q8_0.gguf"
