"""A tuning that somebody watches."""

from __future__ import annotations

import time
from typing import IO, TYPE_CHECKING, Any

from nbllm.config import Config
from nbllm.core import ModelInfo
from nbllm.session.tuning.tune import Outcome, Tuning
from nbllm.session.tuning.tuner import Step
from nbllm.session.tuning.wish import Wish

if TYPE_CHECKING:
    from tqdm import tqdm

_INTERVAL_S = 0.25
_FORMAT = "{desc}: {percentage:3.0f}%|{bar:20}| {n:.0f}/{total:.0f} [{elapsed}]"


def tune_typed(wish: Wish, model: ModelInfo, config: Config, file: IO[str]) -> Outcome:
    """Tune with a bar; an interrupt shows what is measured so far, and goes on.

    Args:
        model: that is meant, as `tunable` gives it.
        file: what the bar is drawn on.

    Raises:
        KeyboardInterrupt: it was interrupted. Others are those of `Tuning`.
    """
    tuning = Tuning(wish, model, config)
    bar = _Bar(file)
    try:
        return tuning.run(bar.show)
    except KeyboardInterrupt:
        bar.close()
        file.write(f"{tuning.table.text()}\n\n{_interrupted(len(tuning.table.measured), wish)}\n")
        file.flush()
        raise
    finally:
        bar.close()


def _interrupted(count: int, wish: Wish) -> str:
    if not wish.keeps:
        return "interrupted; nothing is kept"
    counted = f"{count} setting is" if count == 1 else f"{count} settings are"
    return f"interrupted; {counted} kept: the same command goes on from there"


class _Bar:
    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._bar: tqdm[Any] | None = None
        self._text, self._shown_s = "", 0.0

    def show(self, step: Step) -> None:
        now_s = time.monotonic()
        if step.text == self._text and now_s - self._shown_s < _INTERVAL_S:
            return
        self._text, self._shown_s = step.text, now_s
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(file=self._file, bar_format=_FORMAT, total=step.num_steps)
        self._bar.total = step.num_steps
        self._bar.set_description_str(step.text, refresh=False)
        self._bar.n = step.num_done + step.share
        self._bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
