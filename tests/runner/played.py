"""Runner processes that load no model: the real child, over an engine with a script."""

from __future__ import annotations

import select
import sys
from pathlib import Path

import nbllm

_CHILD = """
import os, sys, time
sys.path.insert(0, {root!r})
from nbllm.runner import child
from nbllm.testing import ScriptedEngine

def load(spec):
    {loading}
    engine = ScriptedEngine()
    for _ in range(100):
        engine.enqueue("hello", until_cancelled=True)
    return engine

child.load_model = load
child.GRACE_S = 0.5
child.main()
"""


def played_child(loading: str = "pass") -> list[str]:
    """The command of a child that does `loading` (one line of Python) while it loads, and answers without an end."""
    return python(_CHILD.format(root=str(Path(nbllm.__file__).parents[1]), loading=loading))


def python(script: str) -> list[str]:
    return [sys.executable, "-P", "-c", script]


def ends_within(timeout_s: float, pidfd: int) -> bool:
    """Whether the process ends in time."""
    return bool(select.select([pidfd], [], [], timeout_s)[0])
