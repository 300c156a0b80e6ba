"""Bar 11: in a cgroup limited to one CPU, the engine against the best fixed thread count. Needs root and cgroups."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

_QUOTA_US, _NEW = 100_000, 200


def _enter_cgroup() -> None:
    """Move this process into a new cgroup with the quota of one CPU; before llama.cpp makes its threads."""
    v2, v1 = Path("/sys/fs/cgroup/nbllm-bench"), Path("/sys/fs/cgroup/cpu/nbllm-bench")
    folder = v1 if v1.parent.is_dir() else v2
    folder.mkdir(exist_ok=True)
    if folder is v1:
        (folder / "cpu.cfs_period_us").write_text(str(_QUOTA_US))
        (folder / "cpu.cfs_quota_us").write_text(str(_QUOTA_US))
    else:
        (folder / "cpu.max").write_text(f"{_QUOTA_US} {_QUOTA_US}")
    (folder / "cgroup.procs").write_text(str(os.getpid()))


def _engine() -> dict[str, float]:
    _enter_cgroup()
    from tests.bench import engine

    model = engine.load()
    started = time.perf_counter()
    answer = model.chat("Tell me a story.", **engine.endless(model, _NEW))
    return {"tokens_per_s": answer.usage.completion_tokens / (time.perf_counter() - started)}


def _raw(threads: int) -> dict[str, float]:
    _enter_cgroup()
    from tests.bench import raw

    loop = raw.RawLoop(1, threads=threads)
    prompt = loop.ids(raw.chatml("Tell me a story."))
    loop.run([prompt], 4)
    started = time.perf_counter()
    return {"tokens_per_s": loop.run([prompt], _NEW) / (time.perf_counter() - started)}


if __name__ == "__main__":
    from tests.bench import sides

    sides.main(
        __file__,
        {"engine": _engine, "raw-1": lambda: _raw(1), "raw-2": lambda: _raw(2)},
        ratios={
            "11 engine/raw 1 thread (bar 0.9)": ("tokens_per_s", "engine", "raw-1"),
            "11 engine/raw 2 threads (bar 0.9)": ("tokens_per_s", "engine", "raw-2"),
        },
    )
