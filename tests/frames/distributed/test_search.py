from __future__ import annotations

from typing import Any

import dask.dataframe as dd
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from nbllm.errors import ParameterError
from nbllm.session.model import Model

_TEXTS = ["cat", "a dog", None, "cat", "house", "cats", "mouse", "cat"]
_FRAME = pd.DataFrame({"text": pd.Series(_TEXTS, dtype="str"), "n": range(8)})
_FRAME.index = pd.Index([2, 3, 3, 4, 6, 7, 9, 9])


@pytest.mark.parametrize("k", [1, 3, 5, 100])
@pytest.mark.parametrize("npartitions", [1, 3, 8])
def test_search_finds_what_pandas_finds(k: int, npartitions: int, toy: Model) -> None:
    lazy = dd.from_pandas(_FRAME, npartitions=npartitions).llm.search("text", "cat", k=k, model="toy", cache=False)
    found = lazy.compute()
    assert_frame_equal(found, _FRAME.llm.search("text", "cat", k=k, model=toy, cache=False), atol=1e-6)
    assert found["n"].tolist()[:3] == [0, 3, 7][:k]
    assert lazy.npartitions == 1
    assert not lazy.known_divisions


def test_search_of_a_series_names_its_column(toy: Model) -> None:
    lazy = dd.from_pandas(_FRAME, npartitions=3).text.llm.search("cat", 2, into="near", model="toy", cache=False)
    assert_frame_equal(lazy.compute(), _FRAME["text"].llm.search("cat", 2, into="near", model=toy, cache=False))


def test_search_among_nulls_finds_nothing(toy: Model) -> None:
    nulls = pd.DataFrame({"text": pd.Series([None, None], dtype="str")})
    found = dd.from_pandas(nulls, npartitions=2).llm.search("text", "cat", model="toy", cache=False).compute()
    assert (len(found), found["similarity"].dtype) == (0, "float64")


@pytest.mark.parametrize("given", [{"k": 0}, {"query": " "}, {"into": "n"}], ids=str)
def test_search_refuses_at_once(given: dict[str, Any]) -> None:
    with pytest.raises(ParameterError):
        dd.from_pandas(_FRAME, npartitions=2).llm.search("text", **{"query": "cat", **given})
