"""`python -m nbllm.runner [MODULE]`: one model in a process of its own, for the process that started it.

`process.command` runs this file by its path, with Python's safe path, so that the child takes the very nbllm that its
parent has and no other that a folder may hold. MODULE is another module whose `main` is to be run instead.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path


def _provide_nbllm() -> None:
    package = Path(__file__).resolve().parents[1]
    spec = importlib.util.spec_from_file_location("nbllm", package / "__init__.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"there is no nbllm in {package}")
    module = importlib.util.module_from_spec(spec)
    sys.modules["nbllm"] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    if not __package__:
        _provide_nbllm()

    importlib.import_module(sys.argv[1] if len(sys.argv) > 1 else "nbllm.runner.child").main()
