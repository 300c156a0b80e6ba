"""A verb over the partitions of a Dask frame or Series: each is a pandas one, and asks for itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nbllm.frames.accessor import FrameAccessor, SeriesAccessor
from nbllm.frames.distributed.models import Sent, received, sent
from nbllm.frames.distributed.options import check

if TYPE_CHECKING:
    import pandas as pd

Accessor = type[FrameAccessor] | type[SeriesAccessor]


@dataclass(frozen=True, slots=True)
class Work:
    """A verb with its arguments, as it travels to the workers."""

    accessor: Accessor
    verb: str
    args: tuple[Any, ...]
    options: Mapping[str, Any]

    def on(self, table: Any, **more: Any) -> Any:
        """The verb's result about a pandas frame or Series."""
        return getattr(self.accessor(table), self.verb)(*self.args, **{**self.options, **more})


def by_partition(collection: Any, work: Work, *, keeps_order: bool = True) -> Any:
    """A Dask frame or Series of the work's results. Nothing is asked and no model is loaded until it is computed.

    Args:
        collection: Dask's frame or Series.
        keeps_order: the rows stay between the divisions.

    Raises:
        NbllmError: what can be known to be wrong without a row.
    """
    check(work.options)
    model = sent(work.options.get("model"))
    work = replace(work, options={name: value for name, value in work.options.items() if name != "model"})
    like = work.on(collection._meta)
    return collection.map_partitions(
        asked, work, model, like.ndim, like.shape[-1] if like.ndim > 1 else 1,
        meta=like, transform_divisions=False, clear_divisions=not keeps_order,
    )  # fmt: skip


def asked(partition: pd.DataFrame | pd.Series, work: Work, model: Sent, ndim: int, width: int) -> Any:
    """A partition's result, in a worker. An error there is raised where the frame is computed.

    Args:
        width: how many columns the result has. A column for the errors, which pandas' verbs add where there are any,
            would be in some partitions and not in others; it comes last, and is left out.
    """
    has_rows = len(partition) > 0
    result = work.on(partition, model=received(model) if has_rows else None, progress=False)
    if ndim == 1:
        return result if result.ndim == 1 else result.iloc[:, 0].rename(partition.name)
    return result.iloc[:, :width]


def nearest(found: Any, k: int, into: str) -> Any:
    """Of the nearest rows of each partition the nearest of all, in one partition."""
    return found.repartition(npartitions=1).map_partitions(_first, k, into, meta=found._meta, transform_divisions=False)


def _first(found: pd.DataFrame, k: int, into: str) -> pd.DataFrame:
    import numpy as np

    order = np.argsort(-found[into].to_numpy(), kind="stable")
    return found.iloc[order[: int(k)]]
