"""The binding without its package: what a program's own `import llama_cpp` finds afterwards, and before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nbllm.errors import ModelLoadError

_AFTERWARDS = """
import sys
from nbllm.llama.library import library
ours = library()
assert not [name for name in sys.modules if name.split(".")[0] == "llama_cpp"], "the package was touched"
assert "numpy" not in sys.modules and "jinja2" not in sys.modules
import llama_cpp
import llama_cpp.llama_cpp as theirs
from llama_cpp import Llama, LlamaGrammar
from llama_cpp.llama_chat_format import Jinja2ChatFormatter
assert llama_cpp.llama_cpp is theirs and llama_cpp.llama_print_system_info() == ours.api.llama_print_system_info()
assert theirs._lib._name == ours.api._lib._name and theirs._lib._handle == ours.api._lib._handle
"""
_BEFORE = """
import llama_cpp.llama_cpp as theirs
from nbllm.llama.library import library
assert library().api is theirs
"""
_BESIDE = """
import sys, threading
from nbllm.llama.bindings import import_bindings
found = []
threads = [threading.Thread(target=lambda: found.append(import_bindings())) for _ in range(4)]
for thread in threads:
    thread.start()
import llama_cpp
for thread in threads:
    thread.join()
assert len(found) == 4 and all(module.llama_print_system_info() for module in found)
assert llama_cpp.Llama and sys.modules["llama_cpp._ctypes_extensions"]
"""
_LOG_AFTERWARDS = """
import logging, sys
import nbllm
from nbllm.llama.library import library
from nbllm.llama.model import LlamaModel
library()
import llama_cpp
lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append(record.getMessage())
logging.getLogger("nbllm.llama").addHandler(handler)
logging.getLogger("nbllm.llama").setLevel(logging.DEBUG)
try:
    LlamaModel(sys.argv[1])
except nbllm.errors.ModelLoadError as error:
    assert "magic" in str(error), error
assert any("magic" in line for line in lines), lines
"""


def _run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(_AFTERWARDS, id="imported afterwards"),
        pytest.param(_BEFORE, id="imported before"),
        pytest.param(_BESIDE, id="imported by another thread meanwhile"),
    ],
)
def test_package_is_whole(program: str) -> None:
    _run(program)


def test_log_is_taken_back_from_the_package(tmp_path: Path) -> None:
    """Importing llama_cpp sends llama.cpp's log to stderr."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"no model" * 8)
    assert "magic" not in _run(_LOG_AFTERWARDS, str(broken))


def test_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from nbllm.llama import bindings, library

    monkeypatch.setattr(bindings, "_PACKAGE", "llama_cpp_that_is_not_there")
    with pytest.raises(ModelLoadError, match=r"not installed.*pip install"):
        library._import_bindings()


def test_helpers_of_a_binding_that_fails_are_taken_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from nbllm.llama import bindings

    (tmp_path / "_ctypes_extensions.py").write_text("")
    (tmp_path / "llama_cpp.py").write_text("from a_package._ctypes_extensions import byref")
    monkeypatch.setattr(bindings, "_PACKAGE", "a_package")
    monkeypatch.setattr(bindings, "_HELPERS", "a_package._ctypes_extensions")
    monkeypatch.setattr(bindings, "_folder", lambda: tmp_path)
    with pytest.raises(ImportError, match="byref"):
        bindings.import_bindings()
    assert not [name for name in sys.modules if name.startswith("a_package")]
