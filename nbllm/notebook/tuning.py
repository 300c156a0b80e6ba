"""`%llm tune`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from nbllm.session.tuning.table import Table


def tune(words: Sequence[str], say: Callable[[str], None]) -> pd.DataFrame | None:
    """Tune a model, or forget that; the value is the table of what was measured.

    Args:
        say: shows a text in the running cell.

    Raises:
        ParameterError: the words are not understood.
        KeyboardInterrupt: it was interrupted; what was measured is kept and shown.
    """
    from nbllm.config import load_config
    from nbllm.session.tunable import tunable
    from nbllm.session.tuning.typed import tune_typed
    from nbllm.session.tuning.wish import wished

    wish, config = wished(words), load_config()
    outcome = tune_typed(wish, tunable(wish.model, config), config, sys.stdout)
    say(outcome.text)
    return _frame(outcome.table) if outcome.table is not None else None


def _frame(table: Table) -> pd.DataFrame:
    """One row a setting; speeds are in tokens a second, kl in nats a token."""
    import pandas as pd

    from nbllm.session.tuning.table import SPEEDS

    rows = [
        [
            one.setting.label(table.quantization),
            *(getattr(one.speeds, name) if one.runs else None for name in SPEEDS),
            one.divergence,
            one.size_bytes,
            one.setting == table.chosen,
            one.problem,
        ]
        for one in table.measured
    ]
    frame = pd.DataFrame(rows, columns=["setting", *SPEEDS, "kl", "size_bytes", "chosen", "problem"])
    return frame.astype(dict.fromkeys((*SPEEDS, "kl"), "float64")).round({**dict.fromkeys(SPEEDS, 1), "kl": 4})
