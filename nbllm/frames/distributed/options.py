"""Options of the verbs that a table in partitions cannot keep, each with what to do in its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbllm.errors import ParameterError

_INSTEAD: Mapping[str, str] = {
    "background": "a Dask frame is computed in the background by .persist(); leave it out",
    "limit": "would count anew in each partition; try the first rows with ddf.head(20), which is a pandas frame",
    "on_interrupt": "an interrupt does not reach the workers; what is finished is in the cache, so compute it again",
    "progress": "the workers show nothing; use dask.diagnostics.ProgressBar() or distributed.progress(ddf.persist())",
}


def check(options: Mapping[str, Any]) -> None:
    """Refuse what would do something else here than it says.

    Raises:
        ParameterError: the message says what to do instead.
    """
    for name, instead in _INSTEAD.items():
        if not _says_nothing(options.get(name)):
            raise ParameterError(name, instead)

    from dask import is_dask_collection

    for name, value in options.items():
        if is_dask_collection(value):
            raise ParameterError(name, "goes to every worker as a whole, so it cannot be Dask's: give its .compute()")


def _says_nothing(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, str) and value == "raise")
