"""`ddf.llm` and `ds.llm`: the verbs of `df.llm` over a Dask frame and Series."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any

from nbllm.frames.accessor import FrameAccessor, SeriesAccessor
from nbllm.frames.distributed.partitions import Accessor, Work, by_partition, nearest


class _DaskAccessor:
    """What both have."""

    _pandas: Accessor

    def __init__(self, collection: Any) -> None:
        self._collection = collection

    def __repr__(self) -> str:
        kind = type(self._collection).__name__
        return f"<nbllm accessor of a Dask {kind} in {self._collection.npartitions:,} partitions: map, classify, ...>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(self._pandas, name):
            raise AttributeError(f"there is no llm.{name}")
        raise AttributeError(f"llm.{name} is about a table as a whole: compute it first, ddf.compute().llm.{name}(...)")

    def _search(self, args: tuple[Any, ...], k: Any, into: str, options: dict[str, Any]) -> Any:
        work = Work(self._pandas, "search", (*args, k), {"into": into, **options})
        return nearest(by_partition(self._collection, work, keeps_order=False), k, into)


def _verb(method: Callable[..., Any]) -> Callable[..., Any]:
    """The pandas accessor's method, over partitions."""

    @wraps(method)
    def ask(self: _DaskAccessor, *args: Any, **options: Any) -> Any:
        return by_partition(self._collection, Work(self._pandas, method.__name__, args, options))

    return ask


class DaskFrameAccessor(_DaskAccessor):
    """`ddf.llm`: the verbs and options of `df.llm`, over a Dask frame.

    A verb gives a Dask frame; the rows are asked when it is computed, each partition by the worker that has it. A
    worker process loads the model once, with the first partition, and its threads share it. The workers of one machine
    divide its cores. Finished answers are in the cache of the worker's user at once: computing again, or a partition
    again whose worker was lost, asks for the rest only. Where `reproducible=True` is given, the rows have the answers
    that they have in pandas.

    What differs:
        model: a name or a path, found on the worker's machine, or what `nbllm.connect` gave; a Model that is loaded
            here cannot travel.
        on_error: "keep" leaves a failed row's values missing and has no column with the error, which only some
            partitions would have, unless details=True is given; the workers' logs have the first.
        max_concurrency: of each partition that is being computed.
        progress, background, limit, on_interrupt: are refused, with what Dask has in their place.
    """

    _pandas = FrameAccessor

    map = _verb(FrameAccessor.map)
    classify = _verb(FrameAccessor.classify)
    extract = _verb(FrameAccessor.extract)
    filter = _verb(FrameAccessor.filter)
    score = _verb(FrameAccessor.score)
    judge = _verb(FrameAccessor.judge)
    prefer = _verb(FrameAccessor.prefer)
    summarize = _verb(FrameAccessor.summarize)
    translate = _verb(FrameAccessor.translate)
    embed = _verb(FrameAccessor.embed)
    prompts = _verb(FrameAccessor.prompts)

    def search(self, col: Hashable, query: str, k: int = 5, *, into: str = "similarity", **options: Any) -> Any:
        """The k rows nearest to the query, in one partition: those of each partition are found first."""
        return self._search((col, query), k, into, options)


class DaskSeriesAccessor(_DaskAccessor):
    """`ds.llm`: the verbs and options of `s.llm`, over a Dask Series. What differs is as in `ddf.llm`."""

    _pandas = SeriesAccessor

    map = _verb(SeriesAccessor.map)
    classify = _verb(SeriesAccessor.classify)
    extract = _verb(SeriesAccessor.extract)
    filter = _verb(SeriesAccessor.filter)
    score = _verb(SeriesAccessor.score)
    judge = _verb(SeriesAccessor.judge)
    summarize = _verb(SeriesAccessor.summarize)
    translate = _verb(SeriesAccessor.translate)
    embed = _verb(SeriesAccessor.embed)
    prompts = _verb(SeriesAccessor.prompts)

    def search(self, query: str, k: int = 5, *, into: str = "similarity", **options: Any) -> Any:
        """The k values nearest to the query; see `ddf.llm.search`."""
        return self._search((query,), k, into, options)
