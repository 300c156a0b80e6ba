from __future__ import annotations

import pytest

from nbllm.errors import InsufficientMemoryError
from nbllm.store.pulling import PullError
from nbllm.store.remote.choice import RemoteFile, chosen, fits, quantization_label
from nbllm.store.remote.names import HubName

GB = 10**9


def repository(*files: tuple[str, float]) -> list[RemoteFile]:
    return [RemoteFile(path, int(size * GB), "0" * 64) for path, size in files]


def wanted(file: str = "", quantization: str = "") -> HubName:
    return HubName(owner="org", repo="repo", file=file, quantization=quantization)


USUAL = repository(
    ("README.md", 0.1),
    ("m-Q2_K.gguf", 3),
    ("m-Q4_K_M.gguf", 4.7),
    ("m-Q8_0.gguf", 8),
    ("m-f16.gguf", 15),
    ("imatrix.gguf", 1),
)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("SmolLM2-135M-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("llama-2-7b-chat.Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-7b-instruct-q4_k_m-00001-of-00002.gguf", "Q4_K_M"),
        ("m-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("m-IQ2_XXS.gguf", "IQ2_XXS"),
        ("m-Q4_0_4_4.gguf", "Q4_0_4_4"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("mmproj-model-f16.gguf", "F16"),
        ("m-BF16.gguf", "BF16"),
        ("Q4_K_M.gguf", "Q4_K_M"),
        ("Phi-3.gguf", ""),
        ("Q4_K_M-model.gguf", ""),
    ],
)
def test_quantization_label(name: str, label: str) -> None:
    assert quantization_label(name) == label


@pytest.mark.parametrize(
    ("memory_gb", "file"),
    [
        pytest.param(64, "m-Q8_0.gguf", id="never f16"),
        pytest.param(8.8, "m-Q8_0.gguf", id="exactly"),
        pytest.param(8.7, "m-Q4_K_M.gguf", id="not quite"),
        pytest.param(3.6, "m-Q2_K.gguf", id="little"),
    ],
)
def test_the_largest_that_fits_is_chosen(memory_gb: float, file: str) -> None:
    assert [one.path for one in chosen(USUAL, wanted(), int(memory_gb * GB))] == [file]


def test_nothing_fits_says_how_to_get_the_smallest() -> None:
    with pytest.raises(InsufficientMemoryError, match=r"hf:org/repo:Q2_K$"):
        chosen(USUAL, wanted(), 2 * GB)
    assert chosen(USUAL, wanted(quantization="q2_k"), 2 * GB)[0].path == "m-Q2_K.gguf"


def test_only_unquantized_weights_are_better_than_none() -> None:
    assert chosen(repository(("m-F32.gguf", 4), ("m-F16.gguf", 2)), wanted(), 3 * GB)[0].path == "m-F16.gguf"


def test_a_single_model_is_meant_whatever_its_size_and_name() -> None:
    assert chosen(repository(("model.gguf", 40)), wanted(), GB)[0].path == "model.gguf"


def test_dynamic_quantization_is_found_with_and_without_its_prefix() -> None:
    files = repository(("m-Q4_K_M.gguf", 4), ("m-UD-Q4_K_M.gguf", 5), ("m-UD-Q4_K_XL.gguf", 6))
    assert chosen(files, wanted(quantization="Q4_K_M"), GB)[0].path == "m-Q4_K_M.gguf"
    assert chosen(files, wanted(quantization="UD-Q4_K_M"), GB)[0].path == "m-UD-Q4_K_M.gguf"
    assert chosen(files, wanted(quantization="Q4_K_XL"), GB)[0].path == "m-UD-Q4_K_XL.gguf"


@pytest.mark.parametrize("named", [wanted("m-Q4_0-00002-of-00003.gguf"), wanted(quantization="Q4_0"), wanted()])
def test_every_part_of_a_split_model_comes_in_order(named: HubName) -> None:
    parts = [(f"m-Q4_0-0000{number}-of-00003.gguf", 1.0) for number in (3, 1, 2)]
    assert [file.path for file in chosen(repository(*parts), named, 40 * GB)] == sorted(name for name, _ in parts)


def test_a_split_model_counts_as_a_whole() -> None:
    parts = [(f"Q8_0/m-Q8_0-0000{number}-of-00002.gguf", 3.0) for number in (1, 2)]
    assert chosen(repository(*parts, ("m-Q4_0.gguf", 3)), wanted(), 5 * GB)[0].path == "m-Q4_0.gguf"


def test_a_split_model_that_lacks_a_part_is_refused() -> None:
    with pytest.raises(PullError, match="lacks m-00002-of-00003"):
        chosen(repository(("m-00001-of-00003.gguf", 1), ("m-00003-of-00003.gguf", 1)), wanted(), 40 * GB)


def test_absurd_count_of_parts_costs_nothing() -> None:
    with pytest.raises(PullError, match="lacks"):
        chosen(repository(("m-00001-of-99999.gguf", 1)), wanted(), 40 * GB)


@pytest.mark.parametrize(
    ("projectors", "taken"),
    [
        pytest.param(["mmproj-m-BF16.gguf", "mmproj-m-f16.gguf", "mmproj-m-Q8_0.gguf"], "mmproj-m-f16.gguf", id="f16"),
        pytest.param(["mmproj-m-Q8_0.gguf"], "mmproj-m-Q8_0.gguf", id="the only one"),
        pytest.param(["m.mmproj-x.gguf", "mmproj-F32.gguf"], "mmproj-F32.gguf", id="known before unknown"),
    ],
)
def test_a_projector_comes_with_its_model(projectors: list[str], taken: str) -> None:
    files = repository(("m-Q4_0.gguf", 1), *((name, 0.5) for name in projectors))
    assert [file.path for file in chosen(files, wanted(), 40 * GB)] == ["m-Q4_0.gguf", taken]


@pytest.mark.parametrize(
    ("files", "named", "says"),
    [
        pytest.param([("model.safetensors", 1)], wanted(), "has no GGUF files", id="no gguf"),
        pytest.param([("../m.gguf", 1), ("/m.gguf", 1), ("x/con.gguf", 1)], wanted(), "has no GGUF", id="unsafe names"),
        pytest.param([("m-Q4_0.gguf", 1)], wanted("n.gguf"), "no file n.gguf; it has m-Q4_0.gguf", id="no such file"),
        pytest.param([("m-Q4_0.gguf", 1)], wanted("mmproj-m.gguf"), "projector", id="projector alone"),
        pytest.param(
            [("m-Q4_0.gguf", 1)], wanted(quantization="Q5_0"), "no Q5_0; it has Q4_0", id="no such quantization"
        ),
        pytest.param([("a.gguf", 1), ("b.gguf", 1)], wanted(), "write the file: hf:org/repo/a.gguf", id="several"),
        pytest.param(
            [("a-Q4_0.gguf", 1), ("b-Q4_0.gguf", 1)], wanted(quantization="Q4_0"), "several models", id="two of a label"
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(files: list[tuple[str, float]], named: HubName, says: str) -> None:
    with pytest.raises(PullError, match=says):
        chosen(repository(*files), named, 40 * GB)


def test_file_is_found_in_any_case() -> None:
    assert chosen(USUAL, wanted("M-q8_0.GGUF"), GB)[0].path == "m-Q8_0.gguf"


def test_fits_leaves_room_for_a_context() -> None:
    assert fits(GB, int(1.5 * GB) + 12 * 10**6)
    assert not fits(GB, int(1.5 * GB))
    assert not fits(20 * GB, int(21.9 * GB))
