"""Bar 5 of models: `chat_many` with what `%llm tune` chooses for the bundled model, against the model as it is.

First it tunes, in a models folder of its own, and prints the table. Then the sides are loads of the bundled model with
and without that folder, in processes of their own and in turn.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench import engine, sides

_NUM, _NEW = 32, 48


def _many() -> dict[str, float]:
    model = engine.load()
    engine.many(model, 8, 8)
    return {"tokens_per_s": engine.many(model, _NUM, _NEW, cache_prompt=False)}


def _plain() -> dict[str, float]:
    os.environ["NBLLM_MODELS_DIR"] = os.path.join(os.environ["NBLLM_MODELS_DIR"], "none")
    return _many()


SIDES = {"plain": _plain, "tuned": _many}
RATIOS = {"5 tuned/plain (bar 1.3)": ("tokens_per_s", "tuned", "plain")}


def _tune() -> None:
    from nbllm.config import load_config
    from nbllm.session.tunable import tunable
    from nbllm.session.tuning.typed import tune_typed
    from nbllm.session.tuning.wish import Wish

    config = load_config()
    outcome = tune_typed(Wish("smollm2"), tunable("smollm2", config), config, sys.stderr)
    assert outcome.table is not None
    sys.stderr.write(f"{outcome.table.text()}\n\n{outcome.text}\n\n")


if __name__ == "__main__":
    if "--side" in sys.argv:
        sides.main(__file__, SIDES, ratios=RATIOS)
    else:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["NBLLM_MODELS_DIR"] = os.environ.get("BENCH_TUNE_DIR", folder)
            os.environ["NBLLM_FOREIGN_STORES"] = "none"
            _tune()
            sides.main(__file__, SIDES, ratios=RATIOS)
