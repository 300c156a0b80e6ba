"""Which LoRA files are let through to llama.cpp: many of the others would end the process there."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from nbllm.core import Adapter
from nbllm.engine.adapters import MOST_ADAPTERS, AdapterCheck, AdapterFiles
from nbllm.errors import ModelLoadError, ModelNotFoundError, ParameterError
from nbllm.store.gguf import check_complete, model_info
from tests import lora
from tests.store import gguf_writer as writer

_Q, _NORM, _EMBED, _EXPERTS = "blk.0.attn_q.weight", "blk.0.attn_norm.weight", "token_embd.weight", "blk.0.exps.weight"
_A, _B = (f"{_Q}.lora_a", (32, 4), [0.1] * 128), (f"{_Q}.lora_b", (4, 64), [0.1] * 256)
_Tensors = list[tuple[str, tuple[int, ...], list[float]]]


def _base(path: Path, *, output: bool = True, kind: int = lora.F32) -> Path:
    tensors: _Tensors = [
        (_EMBED, (32, 10), [0.0] * 320),
        (_NORM, (32,), [1.0] * 32),
        (_EXPERTS, (32, 2, 3), [0.0] * 192),
        *([("output.weight", (32, 10), [0.0] * 320)] if output else []),
    ]
    data = writer.gguf(writer.llama_values(), [writer.Tensor(_Q, (32, 64), kind, 0)], data_bytes=32 * 64 * 4)
    if kind != lora.F32:
        return writer.write(path, data)
    return lora.write(path, [(_Q, (32, 64), [0.0] * 2048), *tensors], writer.llama_values())


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return _base(tmp_path / "base.gguf")


def _made(tmp_path: Path, tensors: _Tensors | None = None, **changes: writer.Typed | None) -> Path:
    return lora.write(tmp_path / "lora.gguf", [_A, _B] if tensors is None else tensors, lora.values(**changes))


def _refusal(base: Path, path: Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        AdapterCheck(str(base))(str(path))
    said = str(caught.value)
    assert "\n" not in said
    assert path.name in said
    return said


@pytest.mark.parametrize(
    "tensors",
    [
        pytest.param([_A, _B], id="one matrix"),
        pytest.param([_B, _A, (_NORM, (32,), [1.0] * 32)], id="norms besides"),
        pytest.param(
            [(f"{_EMBED}.lora_a", (2, 10), [0.1] * 20), (f"{_EMBED}.lora_b", (2, 32), [0.1] * 64)], id="embeddings"
        ),
        pytest.param(
            [(f"{_EXPERTS}.lora_a", (32, 1, 3), [0.1] * 96), (f"{_EXPERTS}.lora_b", (1, 2, 3), [0.1] * 6)], id="experts"
        ),
    ],
)
def test_adapter_that_fits_is_let_through(base: Path, tmp_path: Path, tensors: _Tensors) -> None:
    AdapterCheck(str(base))(str(_made(tmp_path, tensors)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"general__type": writer.text("model")}, "no LoRA adapter but a model", id="a model"),
        pytest.param({"general__type": None}, "no LoRA adapter but a model", id="no type"),
        pytest.param({"general__type": writer.strings(["adapter"])}, "no LoRA adapter", id="type in a list"),
        pytest.param({"general__architecture": writer.text("qwen2")}, "of the family qwen2", id="another family"),
        pytest.param({"general__architecture": writer.u32(3)}, "of the family unknown", id="family is a number"),
        pytest.param({"adapter__type": writer.text("ia3")}, "of the type ia3", id="another kind"),
        pytest.param({"adapter__lora__alpha": writer.number(writer.F64, 4)}, "no 32-bit number", id="alpha of 64 bits"),
        pytest.param({"adapter__lora__alpha": writer.u32(4)}, "alpha is 4", id="whole alpha"),
        pytest.param({"adapter__lora__alpha": writer.number(writer.F32, math.nan)}, "alpha is nan", id="alpha NaN"),
        pytest.param(
            {"adapter__alora__invocation_tokens": writer.numbers(writer.U32, [1])}, "activated LoRA", id="aLoRA"
        ),
    ],
)
def test_adapter_whose_values_are_wrong_is_refused(
    base: Path, tmp_path: Path, changes: dict[str, writer.Typed | None], said: str
) -> None:
    metadata = lora.values()
    for name, value in changes.items():
        metadata.pop(name.replace("__", "."), None)
        if value is not None:
            metadata[name.replace("__", ".")] = value
    assert said in _refusal(base, lora.write(tmp_path / "lora.gguf", [_A, _B], metadata))


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        pytest.param([], "changes no matrix", id="nothing"),
        pytest.param([(_NORM, (32,), [1.0] * 32)], "changes no matrix", id="norms alone"),
        pytest.param([_A], "half of the pair", id="only a"),
        pytest.param([_B], "half of the pair", id="only b"),
        pytest.param([_A, _B, ("x.bias", (2,), [0.0] * 2)], "x.bias is no part of a LoRA", id="another tensor"),
        pytest.param(
            [(f"x{_A[0]}", *_A[1:]), (f"x{_B[0]}", *_B[1:])], "which this model does not have", id="unknown matrix"
        ),
        pytest.param([(_A[0], (31, 4), [0.1] * 124), _B], "31 x 4 and 4 x 64, which does not fit", id="wrong rows"),
        pytest.param([_A, (_B[0], (4, 63), [0.1] * 252)], "which does not fit", id="wrong columns"),
        pytest.param([_A, (_B[0], (5, 64), [0.1] * 320)], "which does not fit", id="ranks differ"),
        pytest.param([(_A[0], (32, 0), []), (_B[0], (0, 64), [])], "which does not fit", id="rank 0"),
        pytest.param([(_A[0], (32, 4, 0), []), _B], "no matrix that a LoRA can change", id="third dimension of 0"),
        pytest.param([(_A[0], (32, 4, 2), [0.1] * 256), _B], "no matrix", id="third dimension"),
        pytest.param(
            [(f"{_NORM}.lora_a", (32, 4), [0.1] * 128), (f"{_NORM}.lora_b", (4, 1), [0.1] * 4)],
            "no matrix",
            id="vector",
        ),
        pytest.param([(_A[0], (32, 4), [math.nan] * 128), _B], "not finite", id="NaN"),
        pytest.param([_A, (_B[0], (4, 64), [math.inf] * 256)], "not finite", id="infinite"),
        pytest.param([_A, _B, _A], "same name", id="twice"),
        pytest.param(
            [(f"blk.{number}.x.lora_a", (1, 1), [0.0]) for number in range(10_000)], "half of the pair", id="10,000"
        ),
    ],
)
def test_adapter_whose_tensors_do_not_fit_is_refused(base: Path, tmp_path: Path, tensors: _Tensors, said: str) -> None:
    assert said in _refusal(base, _made(tmp_path, tensors))


def test_embeddings_that_are_the_output_too_are_refused(tmp_path: Path) -> None:
    made = _made(tmp_path, [(f"{_EMBED}.lora_a", (2, 10), [0.1] * 20), (f"{_EMBED}.lora_b", (2, 32), [0.1] * 64)])
    assert "also makes its output with" in _refusal(_base(tmp_path / "tied.gguf", output=False), made)


def test_type_that_nothing_can_be_added_to_is_refused(base: Path, tmp_path: Path) -> None:
    integers = lora.write(tmp_path / "lora.gguf", [_A, _B], kind=lora.I32)
    assert "its weights are I32" in _refusal(base, integers)
    nvfp4 = _base(tmp_path / "nvfp4.gguf", kind=40)
    assert "NVFP4" in _refusal(nvfp4, _made(tmp_path))


def test_file_that_is_cut_anywhere_is_refused(base: Path, tmp_path: Path) -> None:
    whole = _made(tmp_path).read_bytes()
    for length in (0, 3, 30, len(whole) // 2, len(whole) - 40):
        _refusal(base, writer.write(tmp_path / "cut.gguf", whole[:length]))


def test_folder_and_model_are_no_adapters(base: Path, tmp_path: Path) -> None:
    assert "is a folder" in _refusal(base, tmp_path)
    assert "no LoRA adapter but a model" in _refusal(base, base)


def test_adapter_is_no_model(tmp_path: Path) -> None:
    made = _made(tmp_path)
    assert model_info(made, "lora").problem == "is a LoRA adapter, not a model"
    check_complete(made)  # as a file it is well-formed


def test_set_is_the_same_in_any_order_and_adds_up(base: Path, tmp_path: Path) -> None:
    one, other = (_made(tmp_path / name) for name in "ab")
    files = AdapterFiles(AdapterCheck(str(base)))
    chosen = files.set_of((Adapter(str(one), 0.5), Adapter(str(other)), Adapter(str(one))))
    assert [file.adapter for file in chosen] == [Adapter(str(one), 1.5), Adapter(str(other))]
    assert chosen == files.set_of((Adapter(str(other)), Adapter(str(one), 1.5)))
    assert files.set_of((Adapter(str(one), 0.5), Adapter(str(one), -0.5), Adapter(str(other), 0))) == ()


def test_set_of_a_missing_file_is_refused_even_at_scale_0(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path / "none" / "deep.gguf"):
        with pytest.raises(ModelNotFoundError, match="there is no LoRA adapter"):
            AdapterFiles(lambda path: None).set_of((Adapter(str(path), 0),))


def test_set_of_too_many_is_refused(tmp_path: Path) -> None:
    made = [Adapter(str(writer.write(tmp_path / f"{number}.gguf", b""))) for number in range(MOST_ADAPTERS + 1)]
    with pytest.raises(ParameterError, match="too many"):
        AdapterFiles(lambda path: None).set_of(made)


def test_file_is_checked_again_only_when_it_has_changed(tmp_path: Path) -> None:
    checked: list[str] = []
    files, path = AdapterFiles(checked.append), writer.write(tmp_path / "a.gguf", b"1")
    first = files.set_of((Adapter(str(path)),))
    assert files.set_of((Adapter(str(path)),)) == first
    assert len(checked) == 1
    files.check_unchanged(first)
    writer.write(path, b"22")
    os.utime(path, (1, 1))
    assert files.set_of((Adapter(str(path)),)) != first
    assert len(checked) == 2
    with pytest.raises(ModelLoadError, match="changed while it was waiting"):
        files.check_unchanged(first)
