"""What `import nbllm` adds to the start of the bare interpreter: `python tests/bench/bench_import.py [RUNS]`."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time


def start_ms(statement: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return (time.perf_counter() - began) * 1000


def measure(runs: int) -> dict[str, object]:
    """Alternate the two, so that what else the machine does falls on both; the first of each warms the caches."""
    pairs = [(start_ms("pass"), start_ms("import nbllm")) for _ in range(runs + 1)][1:]
    return {
        "bench": "import",
        "runs": runs,
        "bare_ms": round(statistics.median(bare for bare, _ in pairs), 2),
        "import_ms": round(statistics.median(full for _, full in pairs), 2),
        "median_added_ms": round(statistics.median(full - bare for bare, full in pairs), 2),
    }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 21)))
