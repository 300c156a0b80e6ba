from __future__ import annotations

import pytest

from nbllm.core import Adapter
from nbllm.errors import ParameterError


def test_adapter_is_whole_unless_told() -> None:
    assert Adapter("/a.gguf").scale == 1.0


@pytest.mark.parametrize("scale", [-100, 0, 0.5, 100])
def test_adapter_scale_becomes_a_float(scale: float) -> None:
    adapter = Adapter("/a.gguf", scale)

    assert (adapter.scale, type(adapter.scale)) == (scale, float)


@pytest.mark.parametrize("scale", [101, -100.1, float("nan"), float("inf"), "0.5", None, True], ids=repr)
def test_adapter_refuses_scale(scale: object) -> None:
    with pytest.raises(ParameterError, match="scale"):
        Adapter("/a.gguf", scale)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["", "  ", "a\0b", None, 3], ids=repr)
def test_adapter_refuses_path(path: object) -> None:
    with pytest.raises(ParameterError, match="path of a LoRA file"):
        Adapter(path)  # type: ignore[arg-type]
