"""`jupyter nbllm tune`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

_HELP = """\
usage: jupyter nbllm tune NAME [--max-kl 0.05] [--dry-run]
       jupyter nbllm tune NAME --forget

Measure how fast this machine runs a model, and keep the fastest setting.

options:
  --max-kl NATS   how far the answers may be from those of the model as it is:
                  mean divergence of the next token's distribution (0.05)
  --dry-run       measure and show, and keep nothing
  --forget        load the model as it is again, and remove what was kept
"""


def main(words: Sequence[str]) -> int:
    """Tune as the words say, and print the table."""
    from nbllm.config import load_config
    from nbllm.session.tunable import tunable
    from nbllm.session.tuning.typed import tune_typed
    from nbllm.session.tuning.wish import wished

    if {"-h", "--help"} & set(words):
        sys.stdout.write(_HELP)
        return 0
    wish, config = wished(words), load_config()
    outcome = tune_typed(wish, tunable(wish.model, config), config, sys.stderr)
    table = f"{outcome.table.text()}\n\n" if outcome.table is not None else ""
    sys.stdout.write(f"{table}{outcome.text}\n")
    return 0
