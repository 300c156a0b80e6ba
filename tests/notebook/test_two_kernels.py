"""One kernel holds the model, another uses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.notebook.kernel import Kernel, started

pytestmark = [pytest.mark.model, pytest.mark.usefixtures("smollm2_path")]

FRANCE = "%chat --no-history -s 'You are a helpful assistant.' --temperature 0 What is the capital of France?"
SHARED = "from nbllm.session import sharing\n(one,) = sharing.shared_models()\nprint(one.wait(60), one.problem)"
ANSWERED = "import nbllm\nprint(nbllm.load('smollm2', context_length=1024).stats.completion_tokens)"
LLAMA = "import sys\nprint('llama_cpp' in sys.modules)"


@contextmanager
def with_magics() -> Iterator[Kernel]:
    with started() as kernel:
        assert kernel.run("%load_ext nbllm").reply["status"] == "ok"
        yield kernel


@pytest.fixture(scope="module", autouse=True)
def _own_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBLLM_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime") / "nbllm"))
        yield


@pytest.fixture(scope="module")
def second(_own_folder: None, smollm2_path: Path) -> Iterator[Kernel]:
    with with_magics() as kernel:
        yield kernel


@contextmanager
def first_with_model() -> Iterator[tuple[Kernel, int]]:
    """A kernel that has loaded the model and shares it, and its process."""
    with with_magics() as first:
        assert first.run("%llm load smollm2 context_length=1024").reply["status"] == "ok"
        assert first.run(SHARED).printed == "True \n"
        yield first, int(first.run("import os; print(os.getpid())").printed)


def error_of(kernel: Kernel, cell: str) -> str:
    """The one line that a failing cell shows."""
    ran = kernel.run(cell)
    assert ran.reply["status"] == "error"
    (line,) = (line for error in ran.contents("error") for line in error["traceback"])
    return str(line)


def test_second_kernel_uses_the_first_ones_model_until_that_ends(second: Kernel) -> None:
    with first_with_model() as (first, pid):
        assert f"lives in kernel process {pid}" in second.run("%llm attach smollm2").markdown
        assert "Paris" in second.run(FRANCE).markdown
        assert f"lives in kernel process {pid}" in second.run("%llm status").markdown
        assert int(first.run(ANSWERED).printed) > 3
        assert second.run(LLAMA).printed == "False\n"
        first.manager.shutdown_kernel(now=True)
        assert f"the connection to kernel process {pid} ended; load it again" in error_of(second, FRANCE)
        assert "lives in runner process" in second.run("%llm attach smollm2").markdown
        assert "Paris" in second.run(FRANCE).markdown
        assert second.run(LLAMA).printed == "False\n"
        second.run("%llm unload")


def test_load_tells_of_the_other_copy_until_it_is_no_longer_shared(second: Kernel) -> None:
    own = "import nbllm\nnbllm.load('smollm2', context_length=512).close()"
    with first_with_model() as (first, pid):
        said = f"smollm2 is loaded in kernel process {pid} already: nbllm.load('smollm2', engine='server') uses that"
        assert second.run(own).printed.startswith(said)
        second.run("%llm attach smollm2")
        assert "sharing is off" in first.run("%llm share off").markdown
        assert "load it again" in error_of(second, FRANCE)
        assert second.run(own).printed == ""
        assert "Paris" in first.run(FRANCE).markdown
