from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import nbllm

if TYPE_CHECKING:
    import pytest

COSTLY = ["llama_cpp", "llguidance", "minijinja", "nbllm.session.model", "numpy", "pandas", "tornado"]
LOADED = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell(history_length=0)
before = set(sys.modules)
shell.run_line_magic("load_ext", "nbllm")
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def state(shell: Any) -> dict[str, Any]:
    manager = shell.magics_manager
    return {
        "magics": {kind: dict(manager.magics[kind]) for kind in ("line", "cell")},
        "registry": dict(manager.registry),
        "transformers": list(shell.input_transformers_cleanup),
        "configurables": list(shell.configurables),
        "formatters": dict(shell.display_formatter.ipython_display_formatter.deferred_printers),
        "names": set(shell.user_ns),
    }


def test_unload_leaves_the_shell_as_it_was(shell: Any) -> None:
    before = state(shell)
    nbllm.load_ipython_extension(shell)
    assert state(shell) != before
    nbllm.unload_ipython_extension(shell)
    assert state(shell) == before


def test_unload_gives_back_a_magic_of_that_name(shell: Any) -> None:
    def mine(line: str) -> str:
        return line

    shell.register_magic_function(mine, "line", "chat")
    before = state(shell)
    nbllm.load_ipython_extension(shell)
    nbllm.unload_ipython_extension(shell)
    assert state(shell) == before


def test_loading_twice_is_loading_once(shell: Any) -> None:
    shell.run_line_magic("load_ext", "nbllm")
    once = state(shell)
    nbllm.load_ipython_extension(shell)
    assert state(shell) == once


def test_reload_leaves_one_of_everything(shell: Any) -> None:
    shell.run_line_magic("load_ext", "nbllm")
    once = state(shell)
    shell.run_line_magic("reload_ext", "nbllm")
    again = state(shell)
    assert [len(once[part]) for part in once] == [len(again[part]) for part in again]


def test_unloading_twice_is_harmless(shell: Any) -> None:
    shell.run_line_magic("load_ext", "nbllm")
    nbllm.unload_ipython_extension(shell)
    before = state(shell)
    nbllm.unload_ipython_extension(shell)
    assert state(shell) == before


def test_loading_says_nothing(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run_line_magic("load_ext", "nbllm")
    assert capsys.readouterr() == ("", "")


def test_loading_imports_nothing_costly() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    imported = json.loads(done.stdout)
    assert "nbllm.notebook.magics" in imported
    assert not set(imported).intersection(COSTLY)
