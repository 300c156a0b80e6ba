from __future__ import annotations

from collections.abc import Iterator

import pytest

from nbllm.frames.distributed import partitions
from nbllm.frames.distributed.models import Sent
from nbllm.session.model import Model
from nbllm.testing import toy_engine
from tests.loaded import smollm2

__all__ = ["smollm2"]


@pytest.fixture(autouse=True)
def _in_this_process() -> Iterator[None]:
    """Text columns stay what they are in pandas, so that whole frames can be compared."""
    import dask

    with dask.config.set({"scheduler": "sync", "dataframe.convert-string": False}):
        yield


@pytest.fixture(scope="session")
def _toy() -> Iterator[Model]:
    model = Model(toy_engine())
    yield model
    model.close()


@pytest.fixture
def toy(_toy: Model, monkeypatch: pytest.MonkeyPatch) -> Model:
    """The model of every worker here, called "toy"."""

    def received(sent: Sent) -> Model:
        assert sent == "toy"
        return _toy

    monkeypatch.setattr(partitions, "received", received)
    return _toy
