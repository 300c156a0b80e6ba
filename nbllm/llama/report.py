"""`python -m nbllm.llama.report`: one line of JSON about this machine's llama.cpp, for programs that must not load it.

{"pinned": "0.3.36", "version": "0.3.36", "build": "CPU : SSE3 = 1 | ...", "has_gpu": false, "problem": ""}
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nbllm.errors import NbllmError
from nbllm.llama.library import PINNED, library


def report() -> dict[str, Any]:
    """What is installed and what it can do; `problem` says why it cannot be used."""
    found: dict[str, Any] = {"pinned": PINNED, "version": "", "build": "", "has_gpu": False, "problem": ""}
    with suppress(PackageNotFoundError):  # what follows says so
        found["version"] = version("llama-cpp-python")
    try:
        loaded = library()
    except NbllmError as exc:
        return {**found, "problem": str(exc)}
    return {**found, "build": loaded.build, "has_gpu": loaded.has_gpu}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(report()) + "\n")
