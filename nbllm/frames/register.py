"""`df.llm` and `s.llm`, of pandas and of Dask, whichever of them and nbllm is imported first."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_PANDAS = "pandas"
_DASK = "dask.dataframe"
NAME = "llm"
"""What the accessors are called."""


def register() -> None:
    """Add the accessors to pandas and to Dask: at once if it is loaded, else as soon as it is. Loads neither.

    Until then a finder stands at the head of `sys.meta_path`; afterwards nothing is left of it.
    """
    for kind in (PandasFinder, DaskFinder):
        if kind.waits_for in sys.modules:
            _add_or_tell(kind.add)
        elif not any(isinstance(finder, kind) for finder in sys.meta_path):
            sys.meta_path.insert(0, kind())


class _Finder:
    """Lets the finders behind it find a module, and adds the accessors once its code has run.

    The loader stays the one they chose, for others may look at it; only this one object's `exec_module` is covered,
    and uncovered when it has run. A search that is followed by no import, or by one that fails, changes nothing.
    """

    waits_for: str
    add: Callable[[], None]

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.waits_for:
            return None
        for finder in sys.meta_path[_place_of(self) + 1 :]:
            find: Callable[..., ModuleSpec | None] | None = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find is not None else None
            if spec is not None:
                self._cover(spec.loader)
                return spec
        return None

    def _cover(self, loader: Any) -> None:
        execute: Callable[[ModuleType], None] | None = getattr(loader, "exec_module", None)
        attributes = getattr(loader, "__dict__", None)
        if execute is None or not isinstance(attributes, dict) or "exec_module" in attributes:
            return  # a loader of an old or closed kind: pandas works, and `nbllm.frames.register` can be called later

        def exec_module(module: ModuleType) -> None:
            execute(module)
            if module.__name__ == self.waits_for:  # a loader may serve other modules too
                attributes.pop("exec_module", None)
                self._finish()

        attributes["exec_module"] = exec_module

    def _finish(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        _add_or_tell(type(self).add)


def _place_of(finder: _Finder) -> int:
    return sys.meta_path.index(finder) if finder in sys.meta_path else -1


def _add_or_tell(add: Callable[[], None]) -> None:
    try:
        add()
    except Exception as error:  # noqa: BLE001  # whoever imports them or nbllm has asked for no accessors
        import logging

        logging.getLogger("nbllm.frames").warning("df.llm is not there: %s: %s", type(error).__name__, error)


def _add_to_pandas() -> None:
    import pandas as pd
    from pandas.api.extensions import register_dataframe_accessor, register_series_accessor

    from nbllm.frames.accessor import FrameAccessor, SeriesAccessor

    if getattr(pd.DataFrame, NAME, None) is not FrameAccessor:
        register_dataframe_accessor(NAME)(FrameAccessor)
        register_series_accessor(NAME)(SeriesAccessor)


def _add_to_dask() -> None:
    import dask.dataframe as dd
    from dask.dataframe.extensions import register_dataframe_accessor, register_series_accessor

    from nbllm.frames.distributed.accessor import DaskFrameAccessor, DaskSeriesAccessor

    if getattr(dd.DataFrame, NAME, None) is not DaskFrameAccessor:
        register_dataframe_accessor(NAME)(DaskFrameAccessor)
        register_series_accessor(NAME)(DaskSeriesAccessor)


class PandasFinder(_Finder):
    waits_for = _PANDAS
    add = staticmethod(_add_to_pandas)


class DaskFinder(_Finder):
    waits_for = _DASK
    add = staticmethod(_add_to_dask)
