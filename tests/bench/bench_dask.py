"""Bar 5 of the tables: two Dask workers against pandas on the same cores, with reproducible answers, and one killed.

The fingerprint is of all answers, and the same on every side.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import dask.dataframe as dd
import pandas as pd
from distributed import Client, LocalCluster

import nbllm
from nbllm.session.cache import AnswerCache
from tests.bench import engine, sides

_NUM_ROWS, _NUM_PARTITIONS, _NUM_WORKERS = 32, 4, 2
_RULES = "You write for a shop. " + " ".join(
    f"Rule {number}: whatever is said about {topic} is short, friendly and true, and names no price."
    for number, topic in enumerate(engine.TOPICS, 1)
)
_PROMPT = "Describe {thing}."
_OPTIONS: dict[str, Any] = {"system": _RULES, "max_tokens": 20, "reproducible": True}


def _frame() -> pd.DataFrame:
    return pd.DataFrame({"thing": [f"{engine.TOPICS[row % 10]} number {row * 7 + 3}" for row in range(_NUM_ROWS)]})


def _figures(frame: pd.DataFrame, began: float) -> dict[str, float]:
    duration_s = time.perf_counter() - began
    answers = frame["response"]
    return {
        "rows_per_s": _NUM_ROWS / duration_s,
        "rows": len(frame),
        "missing": int(answers.isna().sum()),
        "fingerprint": zlib.crc32("\n".join(map(str, answers)).encode()),
    }


def _pandas() -> dict[str, float]:
    model = engine.load()
    began = time.perf_counter()
    return _figures(_frame().llm.map(_PROMPT, model=model, cache=False, progress=False, **_OPTIONS), began)


def _dask() -> dict[str, float]:
    with _workers() as client:
        began = time.perf_counter()
        return _figures(_lazy(cache=False).compute(scheduler=client), began)


def _killed() -> dict[str, float]:
    """A worker dies with a quarter of the rows done; those are in the cache."""
    with tempfile.TemporaryDirectory() as folder, _workers() as client:
        cache = AnswerCache(Path(folder))
        pids = list(client.run(os.getpid).values())
        began = time.perf_counter()
        future = client.compute(_lazy(cache=cache))
        while cache.num_answers < _NUM_ROWS / 4 and not future.done():
            time.sleep(0.05)
        os.kill(pids[0], signal.SIGKILL)
        return _figures(future.result(), began)


def _lazy(**options: Any) -> Any:
    return dd.from_pandas(_frame(), npartitions=_NUM_PARTITIONS).llm.map(
        _PROMPT, model="smollm2", **options, **_OPTIONS
    )


@contextmanager
def _workers() -> Iterator[Client]:
    """Warm, as the pandas side is."""
    with (
        LocalCluster(n_workers=_NUM_WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.run(_warm)
        yield client


def _warm() -> None:
    nbllm.load("smollm2").chat("Hello.", max_tokens=8, temperature=0, cache_prompt=False)


if __name__ == "__main__":
    sides.main(
        __file__,
        {"pandas": _pandas, "dask": _dask, "dask, a worker killed": _killed},
        repeats=1,
        ratios={"dask / pandas": ("rows_per_s", "dask", "pandas")},
    )
