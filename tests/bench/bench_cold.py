"""Issue 3, bar 3: the first token of a process that has not used nbllm yet, loading included, in phases.

IPython and ipykernel are imported before the clock starts, as they are in a kernel. Byte code is compiled beforehand,
as it is where nbllm is installed; the model's file is in the page cache after the first run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench import sides


def _api() -> dict[str, float]:
    """`nbllm.load` and `stream`; beside it a second first token, which nothing but evaluating the prompt delays."""
    import ipykernel.kernelapp  # noqa: F401  # a kernel has it

    marks = [time.perf_counter()]
    import nbllm

    load = nbllm.load
    marks.append(time.perf_counter())
    model = load("smollm2")
    marks.append(time.perf_counter())
    next(iter(model.stream("hello", temperature=0)))
    marks.append(time.perf_counter())
    next(iter(model.stream("hello", temperature=0, cache_prompt=False)))
    marks.append(time.perf_counter())
    names = ("import_ms", "load_ms", "first_token_ms", "second_first_token_ms")
    phases = {name: 1e3 * (marks[index + 1] - marks[index]) for index, name in enumerate(names)}
    return {"total_ms": 1e3 * (marks[3] - marks[0]), **phases}


def _cell() -> dict[str, float]:
    """A `%%chat` cell of one token, from the cell's start to its end, in a shell that has the extension."""
    import ipykernel.kernelapp  # noqa: F401
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    shell = InteractiveShell.instance()
    started = time.perf_counter()
    shell.run_line_magic("load_ext", "nbllm")
    loaded = time.perf_counter()
    with capture_output():
        done = shell.run_cell("%%chat --max-tokens 1 --temperature 0\nhello")  # type: ignore[no-untyped-call]
    done.raise_error()
    return {"load_ext_ms": 1e3 * (loaded - started), "cell_ms": 1e3 * (time.perf_counter() - loaded)}


_SIDES = {"api": _api, "cell": _cell}


def _run_compiled() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        for name in _SIDES:
            subprocess.run([sys.executable, __file__, "--side", name], stdout=subprocess.DEVNULL, check=True)
        sides.main(__file__, _SIDES, repeats=9)


if __name__ == "__main__":
    if "--side" in sys.argv:
        sides.main(__file__, _SIDES)
    else:
        _run_compiled()
