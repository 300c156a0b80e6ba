from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from nbllm.frames.distributed import partitions
from nbllm.frames.distributed.models import Sent
from nbllm.session.model import Model
from nbllm.testing import toy_engine
from tests.loaded import smollm2

__all__ = ["smollm2"]


def _import_distributed() -> None:
    """Its import silences Tornado's loggers, which the servers of other tests log to."""
    loggers = [logging.getLogger(name) for name in ("tornado", "tornado.application")]
    before = [(logger, logger.level, logger.propagate, logger.handlers[:]) for logger in loggers]
    import distributed  # noqa: F401

    for logger, level, propagate, handlers in before:
        logger.setLevel(level)
        logger.propagate, logger.handlers = propagate, handlers


_import_distributed()


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
