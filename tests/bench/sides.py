"""Running the sides of a benchmark: each in a process of its own, in turn, several times, compared by medians.

A side is a function in the benchmark's own script that takes no arguments and returns a dict of figures. The script
calls `main(sides)`: without arguments it runs all sides as child processes and prints one JSON object, with `--side`
it runs that one and prints its figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

Side = Callable[[], dict[str, float]]


def main(
    script: str,
    sides: Mapping[str, Side],
    *,
    repeats: int = 3,
    ratios: Mapping[str, tuple[str, str, str]] | None = None,
) -> None:
    """Run the sides and print their medians.

    Args:
        ratios: name of a ratio to (figure, side above, side below).
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", choices=sorted(sides))
    parser.add_argument("--only", nargs="*", choices=sorted(sides), help="run only these sides")
    parser.add_argument("--repeats", type=int, default=repeats)
    given = parser.parse_args()
    if given.side:
        sys.stdout.write("\n" + json.dumps(sides[given.side]()) + "\n")
        return
    chosen = given.only or list(sides)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    for _ in range(given.repeats):
        for name in chosen:
            runs[name].append(_run(script, name))
    medians = {name: _medians(found) for name, found in runs.items()}
    quoted = {
        label: round(medians[above][figure] / medians[below][figure], 3)
        for label, (figure, above, below) in (ratios or {}).items()
        if above in medians and below in medians and medians[below].get(figure)
    }
    report = {"script": Path(script).name, "repeats": given.repeats, "medians": medians, "ratios": quoted, "runs": runs}
    sys.stdout.write(json.dumps(report, indent=1) + "\n")


def _run(script: str, name: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, script, "--side", name], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr[-4000:])
        raise SystemExit(f"side {name} failed with {done.returncode}")
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def _medians(found: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(statistics.median(run[key] for run in found), 4) for key in found[0]}
