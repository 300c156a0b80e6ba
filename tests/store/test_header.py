from __future__ import annotations

import math
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbllm.errors import ModelLoadError
from nbllm.store import ArrayOf, check_complete, model_info, read_metadata
from nbllm.store.ggml import FILE_TYPES, TENSOR_TYPES
from nbllm.store.header import read_header
from nbllm.store.reader import WINDOW_BYTES, HeaderReader, Value
from tests.store import gguf_writer as g


def exact_values(path: Path) -> dict[str, Value]:
    """What walking every string gives, without the reader's shortcut."""
    with open(path, "rb") as file:
        reader = HeaderReader(file, path.stat().st_size, hop=False)
        reader.skip(16)
        return {reader.text(1000, "a key"): reader.value("a key") for _ in range(reader.u64())}


@pytest.mark.parametrize("version", [2, 3], ids=["v2", "v3"])
def test_read_metadata_every_type(tmp_path: Path, version: int) -> None:
    path = g.write(
        tmp_path / "x.gguf",
        g.gguf(
            {
                "u8": g.number(g.U8, 255),
                "i8": g.number(g.I8, -1),
                "u16": g.number(g.U16, 65535),
                "i16": g.number(g.I16, -2),
                "u32": g.number(g.U32, 2**32 - 1),
                "i32": g.number(g.I32, -3),
                "f32": g.number(g.F32, 0.5),
                "bool": g.number(g.BOOL, 1),
                "text": g.text("für"),
                "u64": g.number(g.U64, 2**64 - 1),
                "i64": g.number(g.I64, -4),
                "f64": g.number(g.F64, 0.1),
                "heads": g.numbers(g.I32, [0, 2, 4]),
                "flags": g.numbers(g.BOOL, [True, False]),
                "empty": g.numbers(g.F32, []),
                "most": g.numbers(g.U8, [7] * 1024),
                "too_many": g.numbers(g.U8, [7] * 1025),
                "words": g.strings(["a", "", "ccc"]),
                "last": g.u32(9),
            },
            version=version,
        ),
    )

    header = read_metadata(path)

    assert header.version == version
    assert header.size_bytes == path.stat().st_size
    assert dict(header.values) == {
        "u8": 255,
        "i8": -1,
        "u16": 65535,
        "i16": -2,
        "u32": 2**32 - 1,
        "i32": -3,
        "f32": 0.5,
        "bool": True,
        "text": "für",
        "u64": 2**64 - 1,
        "i64": -4,
        "f64": 0.1,
        "heads": (0, 2, 4),
        "flags": (True, False),
        "empty": (),
        "most": (7,) * 1024,
        "too_many": ArrayOf(g.U8, 1025),
        "words": ArrayOf(g.STRING, 3),
        "last": 9,
    }


def test_read_metadata_wanted_ends_at_the_last_one(tmp_path: Path) -> None:
    whole = g.tiny_model()
    path = g.write(tmp_path / "x.gguf", whole[: whole.index(b"tokenizer.ggml.tokens")])

    header = read_metadata(path, wanted={"llama.context_length", "general.architecture"})

    assert dict(header.values) == {"general.architecture": "llama", "llama.context_length": 2048}


def test_read_metadata_wanted_behind_the_vocabulary(tmp_path: Path) -> None:
    path = g.write(tmp_path / "x.gguf", g.tiny_model())

    assert dict(read_metadata(path, wanted=["tokenizer.ggml.eos_token_id"]).values) == {
        "tokenizer.ggml.eos_token_id": 2
    }


def test_read_metadata_wanted_not_there(tmp_path: Path) -> None:
    path = g.write(tmp_path / "x.gguf", g.tiny_model())

    assert dict(read_metadata(path, wanted=["general.none"]).values) == {}


def test_read_metadata_bad_utf8_is_replaced(tmp_path: Path) -> None:
    path = g.write(tmp_path / "x.gguf", g.gguf({"general.name": g.text(b"a\xff\xfeb")}))

    assert read_metadata(path).text("general.name") == "a\ufffd\ufffdb"


def test_header_integer_of_what_is_no_count(tmp_path: Path) -> None:
    path = g.write(
        tmp_path / "x.gguf",
        g.gguf({"neg": g.number(g.I32, -5), "bool": g.number(g.BOOL, 1), "f": g.number(g.F32, 3), "t": g.text("3")}),
    )
    header = read_metadata(path)

    assert [header.integer(key) for key in ("neg", "bool", "f", "t", "none")] == [0] * 5


def _header(num_tensors: int, num_values: int, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, num_tensors, num_values) + rest


def _value(kind: int, rest: bytes) -> bytes:
    return _header(0, 1, g.packed("key") + struct.pack("<I", kind) + rest)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"GG", "is not a GGUF", id="two-bytes"),
        pytest.param(b"\x93NUMPY", "is not a GGUF", id="other"),
        pytest.param(b"<!DOCTYPE html>", "web page", id="web-page"),
        pytest.param(b"version https://git-lfs", "Git LFS pointer", id="lfs-pointer"),
        pytest.param(b"PK\x03\x04....", "PyTorch", id="zip"),
        pytest.param(b"tjgg\x01\0\0\0", "before GGUF", id="ggjt"),
        pytest.param(b"GGUF", "truncated", id="magic-only"),
        pytest.param(b"GGUF" + struct.pack("<III", 1, 1, 1), "version 1", id="v1"),
        pytest.param(b"GGUF" + struct.pack("<IQQ", 4, 0, 0), "version 4", id="v4"),
        pytest.param(b"GGUF" + struct.pack(">IQQ", 3, 1, 1), "big-endian", id="big-endian"),
        pytest.param(_header(0, 2**63), "values in", id="absurd-values"),
        pytest.param(_header(2**40, 0), "tensors in", id="absurd-tensors"),
        pytest.param(_header(0, 1, struct.pack("<Q", 2**62) + b"x" * 20), "a key is said to have", id="absurd-key"),
        pytest.param(_value(g.STRING, struct.pack("<Q", 2**63)), "value of key is said to have", id="absurd-text"),
        pytest.param(_value(g.STRING, struct.pack("<Q", 99)), "truncated", id="text-past-the-end"),
        pytest.param(_value(13, b"\0" * 8), "unknown type 13", id="unknown-type"),
        pytest.param(_value(g.ARRAY, struct.pack("<IQ", 99, 1)), "unknown type 99", id="unknown-element-type"),
        pytest.param(_value(g.ARRAY, struct.pack("<IQ", g.ARRAY, 1)), "unknown type 9", id="nested-array"),
        pytest.param(_value(g.ARRAY, struct.pack("<IQ", g.STRING, 2**60)), "truncated", id="absurd-strings"),
        pytest.param(_value(g.ARRAY, struct.pack("<IQ", g.U64, 2**63)), "truncated", id="absurd-numbers"),
        pytest.param(
            _value(g.ARRAY, struct.pack("<IQ", g.STRING, 2) + struct.pack("<QQ", 2**64 - 1, 0)),
            "truncated",
            id="string-past-the-end",
        ),
        pytest.param(g.gguf([("a", g.u32(1)), ("a", g.u32(2))]), "a is there twice", id="twice"),
    ],
)
def test_read_metadata_damaged_is_one_line_with_the_file(tmp_path: Path, data: bytes, expected: str) -> None:
    path = g.write(tmp_path / "x.gguf", data)

    with pytest.raises(ModelLoadError, match=expected) as raised:
        read_metadata(path)

    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)
    with pytest.raises(ModelLoadError):
        check_complete(path)
    assert expected in model_info(path, "x").problem


def test_read_metadata_key_with_control_characters_is_escaped(tmp_path: Path) -> None:
    data = _header(0, 1, g.packed("a\n\x1b[2J" + "k" * 1000) + struct.pack("<I", 77))
    path = g.write(tmp_path / "x.gguf", data)

    with pytest.raises(ModelLoadError) as raised:
        read_metadata(path)

    message = str(raised.value).removeprefix(str(path))
    assert message.isprintable()
    assert len(message) < 500


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(_value(g.ARRAY, struct.pack("<IQ", g.STRING, 2**28)), "4,194,304 strings", id="strings"),
        pytest.param(_value(g.ARRAY, struct.pack("<IQ", g.U8, 2**31)) + b"", None, id="skipped-numbers"),
        pytest.param(
            _header(0, 2, g.packed("key") + struct.pack("<IIQ", g.ARRAY, g.U8, 2**31)), "268,435,456", id="long-header"
        ),
    ],
)
def test_read_metadata_huge_sparse_file_is_bounded(tmp_path: Path, values: bytes, expected: str | None) -> None:
    path = g.write(tmp_path / "x.gguf", values)
    os.truncate(path, 2**33)

    if expected is None:
        assert dict(read_metadata(path).values) == {"key": ArrayOf(g.U8, 2**31)}
    else:
        with pytest.raises(ModelLoadError, match=expected):
            read_metadata(path)


def test_read_metadata_kept_values_are_bounded(tmp_path: Path) -> None:
    values = {f"key{index}": g.numbers(g.U8, [1] * 1024) for index in range(1000)}
    path = g.write(tmp_path / "x.gguf", g.gguf(values))

    with pytest.raises(ModelLoadError, match="names and values"):
        read_metadata(path)


@pytest.mark.parametrize(
    "make", [lambda path: path.mkdir(), lambda path: None, lambda path: os.mkfifo(path)], ids=["folder", "none", "fifo"]
)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX")
def test_read_metadata_not_a_file(tmp_path: Path, make: object) -> None:
    path = tmp_path / "x.gguf"
    make(path)  # type: ignore[operator]

    with pytest.raises(ModelLoadError, match=r"x\.gguf"):
        read_metadata(path)
    assert model_info(path, "x").problem


@pytest.mark.parametrize("name", ["a\0b", "\udcff\ud800", "n" * 300], ids=["nul", "surrogates", "overlong"])
def test_read_metadata_impossible_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelLoadError) as raised:
        read_metadata(tmp_path / name)

    assert str(raised.value).isprintable()
    assert model_info(tmp_path / name, "x").problem


def test_check_complete_whole_file(tmp_path: Path) -> None:
    path = g.write(tmp_path / "x.gguf", g.tiny_model())

    check_complete(path)

    assert read_header(path).needed_bytes == path.stat().st_size


def test_check_complete_one_byte_short(tmp_path: Path) -> None:
    data = g.tiny_model()
    path = g.write(tmp_path / "x.gguf", data[:-1])

    with pytest.raises(ModelLoadError, match=f"truncated: has {len(data) - 1:,} bytes, needs {len(data):,}"):
        check_complete(path)


def test_check_complete_alignment_of_the_file(tmp_path: Path) -> None:
    values = {"general.alignment": g.u32(4096)}
    tensors = [g.Tensor("w", (32,), 8, 0)]
    path = g.write(tmp_path / "x.gguf", g.gguf(values, tensors, data_bytes=34, alignment=4096))

    assert read_header(path).needed_bytes == 4096 + 34 == path.stat().st_size


@pytest.mark.parametrize("alignment", [g.u32(0), g.u32(48), g.number(g.I32, -32), g.text("32")])
def test_check_complete_bad_alignment(tmp_path: Path, alignment: g.Typed) -> None:
    path = g.write(tmp_path / "x.gguf", g.gguf({"general.alignment": alignment}, g.TENSORS, data_bytes=5000))

    with pytest.raises(ModelLoadError, match="power of two"):
        check_complete(path)


def test_check_complete_unknown_tensor_type_is_not_measured(tmp_path: Path) -> None:
    tensors = [g.Tensor("w", (2**40,), 4711, 0), g.Tensor("v", (32,), 8, 64)]
    path = g.write(tmp_path / "x.gguf", g.gguf({}, tensors, data_bytes=64 + 34))

    check_complete(path)


def test_check_complete_too_many_dimensions(tmp_path: Path) -> None:
    path = g.write(tmp_path / "x.gguf", g.gguf({}, [g.Tensor("w", (1,) * 5, 0, 0)], data_bytes=64))

    with pytest.raises(ModelLoadError, match="tensor w has 5 dimensions"):
        check_complete(path)


tokens = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.sampled_from([b"tokenizer.", b"tokenizer.x", b"tokenizer.chat_template", b"\0" * 7 + b"tokenizer.ab"]),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tail=tokens, merges=tokens, next_key=st.sampled_from(["tokenizer.ggml.bos_token_id", "general.late", "z"]))
def test_read_header_same_as_walking_every_string(
    tmp_path: Path, tail: Sequence[bytes], merges: Sequence[bytes], next_key: str
) -> None:
    values = {
        "tokenizer.ggml.tokens": g.strings([b"ab"] * 1500 + list(tail)),
        next_key: g.u32(1),
        "tokenizer.ggml.merges": g.strings(list(merges) + [b"a b"] * 1100 + list(merges)),
        "tokenizer.chat_template": g.text("{{ x }}"),
    }
    path = g.write(tmp_path / "x.gguf", g.gguf(values, g.TENSORS, data_bytes=g.TENSOR_BYTES))

    assert dict(read_header(path).values) == exact_values(path)
    check_complete(path)


@pytest.mark.parametrize("left_bytes", range(0, 40))
def test_table_that_begins_before_the_readers_window(tmp_path: Path, left_bytes: int) -> None:
    """Its first tensor is called as a key of the tokenizer, and lies across the end of a window."""
    names = g.strings([b"t"] * 1030)
    tensors = [g.Tensor(f"tokenizer.aaa{number}", (32,), 0, number * 128) for number in range(2)]
    values = {"general.pad": g.text(b""), "tokenizer.ggml.tokens": names}
    table_bytes = sum(8 + len(tensor.name) + 4 + 8 + 4 + 8 for tensor in tensors)
    front_bytes = len(g.gguf(values, tensors)) - table_bytes
    values["general.pad"] = g.text(b"x" * (WINDOW_BYTES - front_bytes - left_bytes))
    path = g.write(tmp_path / "x.gguf", g.gguf(values, tensors, data_bytes=256))

    assert read_header(path).needed_bytes == path.stat().st_size
    with open(path, "ab") as file:  # where it would be read, counted from the window's end
        file.write(bytes(4096) + struct.pack("<Q", 13) + bytes(16))
    read_header(path)


def test_tensors_that_start_at_one_place(tmp_path: Path) -> None:
    tensors = [g.Tensor("none", (0,), 0, 0), g.Tensor("large", (1 << 20,), 0, 0)]
    path = g.write(tmp_path / "x.gguf", g.gguf({}, tensors, data_bytes=100))

    with pytest.raises(ModelLoadError, match="truncated"):
        check_complete(path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_values_read_many_at_once_are_those_read_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    """Around the ends of the reader's windows, too."""
    long = st.integers(0, 40_000).map(lambda length: g.text("é" * length))
    value = st.one_of(
        st.sampled_from([g.u32(7), g.number(g.BOOL, 1), g.number(g.F64, 0.5), g.numbers(g.I32, [1, 2, 3])]),
        st.binary(max_size=40).map(g.text),
        long,
    )
    keys = data.draw(st.lists(st.text(max_size=30), unique=True, max_size=12))
    path = g.write(tmp_path / "x.gguf", g.gguf({key: data.draw(value) for key in keys}, g.TENSORS, data_bytes=2000))

    together = dict(read_header(path).values)
    with monkeypatch.context() as patch:
        patch.setattr(HeaderReader, "plain_values", lambda self, most, limit: [])
        assert dict(read_header(path).values) == together
    assert len(together) == len(keys)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_read_any_damage_is_a_model_load_error(tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(g.tiny_model())
    places = st.one_of(st.integers(0, len(raw) - 9), st.integers(0, 700), st.integers(len(raw) - 2000, len(raw) - 9))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(places)
        new = data.draw(st.one_of(st.binary(min_size=1, max_size=9), st.sampled_from([b"\xff" * 8, b"\0" * 8])))
        if data.draw(st.booleans()):
            raw[at : at + len(new)] = new
        else:
            raw[at:at] = new
    path = g.write(tmp_path / "x.gguf", bytes(raw[: data.draw(st.integers(0, len(raw)))]))

    for read in (read_metadata, check_complete):
        try:
            read(path)
        except ModelLoadError as exc:
            assert str(exc).isprintable()  # noqa: PT017
    info = model_info(path, "x")
    assert info.problem.isprintable()
    assert info.architecture.isprintable()


def test_long_vocabulary_is_hopped_over(tmp_path: Path) -> None:
    path = g.write(tmp_path / "x.gguf", g.gguf({"a": g.strings(["x"] * 1025), "tokenizer.b": g.u32(7)}))
    with open(path, "rb") as file:
        reader = HeaderReader(file, path.stat().st_size, hop=True)
        reader.skip(24)
        values = {reader.text(100, "a key"): reader.value("a key") for _ in range(2)}

    assert reader.has_hopped
    assert values == {"a": ArrayOf(g.STRING, 1025), "tokenizer.b": 7}


def test_vocabularies_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    beginning = [f"token{number}" for number in range(1100)]
    lengths = []
    for number, (ending, after) in enumerate([("x", "tokenizer.b"), ("x" * 50, "tokenizer.b"), ("x", "tokenizer.ccc")]):
        tokens = g.strings([*beginning, ending])
        path = g.write(tmp_path / f"{number}.gguf", g.gguf({"tokenizer.a": tokens, after: g.u32(number)}))
        lengths.append(read_metadata(path).values["tokenizer.a"])
        assert read_metadata(path).values[after] == number

    assert lengths == [ArrayOf(g.STRING, 1101)] * 3


@pytest.mark.parametrize("name_bytes", [1, 200, 1024])
@pytest.mark.parametrize("num_dimensions", [0, 1, 4])
def test_every_tensor_of_a_long_table_counts(name_bytes: int, num_dimensions: int, tmp_path: Path) -> None:
    shape = (32,) * num_dimensions
    size = 32**num_dimensions * 4
    ends = [(number * 7919) % 300 * 32 for number in range(300)]
    tensors = [g.Tensor("n" * name_bytes, shape, 0, offset) for offset in ends]
    header = g.gguf(g.llama_values(), tensors)
    data_start = -(-len(header) // 32) * 32
    path = g.write(tmp_path / "x.gguf", header)

    with open(path, "r+b") as file:
        file.truncate(data_start + max(ends) + size - 1)
    with pytest.raises(ModelLoadError, match="truncated"):
        check_complete(path)
    with open(path, "r+b") as file:
        file.truncate(data_start + max(ends) + size)
    check_complete(path)


def test_tensor_types_as_ggml_has_them() -> None:
    import ctypes
    import importlib.util

    spec = importlib.util.find_spec("llama_cpp")
    folder = Path((spec.submodule_search_locations or [""])[0]) if spec is not None else Path()
    libraries = sorted((folder / "lib").glob("*ggml-base*"))
    if not libraries:
        pytest.skip("llama_cpp is not installed")
    library = ctypes.CDLL(str(libraries[0]))
    library.ggml_type_size.restype = ctypes.c_size_t
    library.ggml_blck_size.restype = ctypes.c_int64

    for kind, stored in TENSOR_TYPES.items():
        assert (library.ggml_blck_size(kind), library.ggml_type_size(kind)) == (stored.block_size, stored.block_bytes)


def test_file_types_as_llama_cpp_has_them() -> None:
    """Read from the binding's source: importing it would load the native library into the test run."""
    import importlib.util
    import re

    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        pytest.skip("llama_cpp is not installed")
    source = Path(spec.origin).with_name("llama_cpp.py").read_text(encoding="utf-8")
    constants = re.findall(r"^LLAMA_FTYPE_(?:ALL_|MOSTLY_)(\w+) = (\d+)$", source, re.MULTILINE)

    assert {int(value): name for name, value in constants} == dict(FILE_TYPES)


def test_header_text_of_nan_metadata(tmp_path: Path) -> None:
    path = g.write(tmp_path / "x.gguf", g.gguf({"x": g.number(g.F32, math.nan)}))

    header = read_metadata(path)

    assert (header.text("x"), header.integer("x")) == ("", 0)
