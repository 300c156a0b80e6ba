"""Each case has a Python of its own, for what is imported first is the question."""

from __future__ import annotations

import subprocess
import sys

import pytest

_THERE = """
import sys
assert dask.dataframe.DataFrame.llm.__name__ == "DaskFrameAccessor"
assert dask.dataframe.Series.llm.__name__ == "DaskSeriesAccessor"
assert not [finder for finder in sys.meta_path if type(finder).__module__.startswith("nbllm")]
import pandas
assert pandas.DataFrame.llm.__name__ == "FrameAccessor"
"""


@pytest.mark.parametrize(
    "first", ["import nbllm, dask.dataframe", "import dask.dataframe, nbllm"], ids=["nbllm", "dask"]
)
def test_accessors_are_there_whichever_is_first(first: str) -> None:
    _run(f"{first}\n{_THERE}")


def test_importing_nbllm_and_pandas_loads_no_dask() -> None:
    _run("import sys, nbllm, pandas\nassert 'dask' not in sys.modules\nassert pandas.DataFrame.llm")


def _run(script: str) -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
