"""Two worker processes with the real model, one of which is killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from nbllm.errors import ModelNotFoundError
from nbllm.session.cache import AnswerCache
from nbllm.session.model import Model
from tests.loaded import CONTEXT

_FRAME = pd.DataFrame({"word": pd.Series(["red", "tea", None, "sea", "old"], dtype="str")})
_OPTIONS: dict[str, Any] = {"temperature": 0.8, "max_tokens": 3, "reproducible": True}
_PATIENCE_S = 150.0


@pytest.mark.model
@pytest.mark.timeout(300)
def test_two_workers_of_which_one_is_killed_give_the_frame_of_pandas(
    smollm2: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Client, LocalCluster

    monkeypatch.setenv("NBLLM_CONTEXT_LENGTH", str(CONTEXT))
    cache = AnswerCache(tmp_path)
    split = dd.from_pandas(_FRAME, npartitions=4)
    lazy = split.llm.map("Say {word}.", model="smollm2", cache=cache, **_OPTIONS)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        pids = list(client.run(os.getpid).values())
        assert len({os.getpid(), *pids}) == 3
        future = client.compute(lazy)
        _wait_for(cache, 1)
        os.kill(pids[0], signal.SIGKILL)
        frame = future.result(timeout=_PATIENCE_S)
        with pytest.raises(ModelNotFoundError, match="no such model"):
            split.llm.map("{word}", model="no such model", cache=False).compute(scheduler=client)

    assert cache.num_answers == _FRAME["word"].count()
    assert_frame_equal(frame, _FRAME.llm.map("Say {word}.", model=smollm2, cache=False, progress=False, **_OPTIONS))


def _wait_for(cache: AnswerCache, num_answers: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while cache.num_answers < num_answers and time.monotonic() < deadline:
        time.sleep(0.02)
