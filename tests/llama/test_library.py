"""The library: what it lacks is said when it is bound, and what is bound twice is the same function."""

from __future__ import annotations

import ctypes
import os
from types import SimpleNamespace
from typing import Any

import pytest

from nbllm.errors import EngineClosedError, ModelLoadError
from nbllm.llama import library as module
from nbllm.llama.library import PINNED, Library, library
from tests.forked import succeeds_in_child


def test_library_is_bound_once() -> None:
    assert library() is library()


@pytest.mark.parametrize("name", module._QUICK)
def test_quick_function_is_the_slow_one_with_the_gil_kept(name: str) -> None:
    bound = library()
    quick, slow = getattr(bound.quick, name), getattr(bound.api._lib, name)
    address = ctypes.cast(quick, ctypes.c_void_p).value
    assert address == ctypes.cast(slow, ctypes.c_void_p).value
    assert (quick.argtypes, quick.restype) == (slow.argtypes, slow.restype)
    assert quick._flags_ & ctypes._FUNCFLAG_PYTHONAPI  # type: ignore[attr-defined]
    assert not slow._flags_ & ctypes._FUNCFLAG_PYTHONAPI  # type: ignore[attr-defined]


def test_unknown_quick_function_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="llama_decode"):
        _ = library().quick.llama_decode


def test_build_says_what_the_processor_can_do() -> None:
    assert "CPU" in library().build
    assert "\n" not in library().build


@pytest.mark.parametrize(
    ("bindings", "says"),
    [
        pytest.param(SimpleNamespace(), "lacks llama_get_logits_ith", id="functions gone"),
        pytest.param(OSError("no libgomp.so.1"), "no libgomp.so.1", id="a library that is missing"),
        pytest.param(ImportError("No module named 'llama_cpp'"), "llama_cpp", id="not installed"),
    ],
)
def test_library_that_cannot_be_used_is_one_line_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, bindings: Any, says: str
) -> None:
    def imported() -> Any:
        if isinstance(bindings, Exception):
            raise bindings
        return bindings

    monkeypatch.setattr(module, "import_bindings", imported)
    with pytest.raises(ModelLoadError, match=says) as refusal:
        Library()
    assert "\n" not in str(refusal.value)
    assert f"llama-cpp-python=={PINNED}" in str(refusal.value)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_library_is_refused_in_a_forked_child() -> None:
    library()

    def use() -> None:
        with pytest.raises(EngineClosedError, match="spawn"):
            library()

    assert succeeds_in_child(use)
