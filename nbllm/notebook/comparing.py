"""One run of a `%%compare` cell: each model's answers in a block of its own while they come, then all side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbllm.errors import ParameterError
from nbllm.notebook.blocks import Blocks
from nbllm.notebook.compose import Composer
from nbllm.notebook.display import updates

if TYPE_CHECKING:
    import pandas as pd

    from nbllm.notebook.compare_arguments import CompareArguments
    from nbllm.notebook.desk import Desk


class Comparing:
    """A comparison on its way to its grid.

    Args:
        asked: as it was typed.
    """

    def __init__(self, asked: CompareArguments, desk: Desk, composer: Composer) -> None:
        self._asked, self._desk, self._composer = asked, desk, composer

    def run(self) -> pd.DataFrame:
        """Ask, show, and give the frame.

        Raises:
            InvalidRequestError: an option is wrong; checked before any model is loaded.
            KeyboardInterrupt: it was interrupted; what is finished is in the cache, and the cell goes on from there.
        """
        from nbllm.frames.compare.compare import planned
        from nbllm.frames.compare.grid import grid

        asked = self._asked
        plan, options = planned(
            self._prompts(),
            self._models(),
            dict(asked.grid) or None,
            self._data(),
            system=self._system(),
            response_format=None if asked.schema is None else self._composer.schema(asked.schema),
            repeat=asked.repeat,
            seed=asked.seed,
            scorers=[self._scorer(scorer) for scorer in asked.scorers] or None,
            expected=asked.expected,
            judge=asked.judge,
            limit=asked.limit,
            cache=asked.cache,
        )
        if updates(self._desk.shell):  # elsewhere a bar has to do
            options = replace(options, watch=Blocks(self._desk.shell.display_pub.publish), progress=False)
        frame = plan.run(options)
        if asked.output:
            self._desk.namespace[asked.output] = frame
        shown = grid(frame, diff=asked.diff)
        self._desk.show(shown._repr_mimebundle_())
        return frame

    def _models(self) -> Any:
        """A variable may hold a Model, such as one on another server, or a file; all else is a name or a path."""
        names = self._asked.models
        held = {name: self._desk.namespace.get(name) for name in names}
        if any(map(_is_model, held.values())):
            return {name: value if _is_model(value) else name for name, value in held.items()}
        return list(names) or self._desk.settings.model

    def _prompts(self) -> Any:
        """With a table the places are its columns, without one the notebook's variables as in `%%chat`."""
        asked = self._asked
        if asked.data is not None:
            return list(asked.prompts)
        return [text if asked.raw else self._composer.interpolated(text) for text in asked.prompts]

    def _system(self) -> str | None:
        system = self._desk.settings.system if self._asked.system is None else self._asked.system
        return None if not system else system if self._asked.raw else self._composer.interpolated(system)

    def _data(self) -> Any:
        name = self._asked.data
        if name is None:
            return None
        if name not in self._desk.namespace:
            raise ParameterError(
                "--data", f"there is no variable {name}; give the name of a DataFrame or a list of dicts"
            )
        return self._desk.namespace[name]

    def _scorer(self, scorer: Any) -> Any:
        """A function of the notebook by its name; everything else is one of the named ones."""
        value = self._desk.namespace.get(scorer) if isinstance(scorer, str) else None
        return value if callable(value) else scorer


def _is_model(value: Any) -> bool:
    from nbllm.session.model import Model

    return isinstance(value, Model) or (isinstance(value, str | Path) and Path(value).is_file())
