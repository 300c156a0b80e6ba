"""One step of a tuning in a process of its own, which `process` runs by this file's path: it may end there as it likes.

With Python's safe path, the child takes the very nbllm that its parent has.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def _provide_nbllm() -> None:
    package = Path(__file__).resolve().parents[2]
    spec = importlib.util.spec_from_file_location("nbllm", package / "__init__.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"there is no nbllm in {package}")
    module = importlib.util.module_from_spec(spec)
    sys.modules["nbllm"] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    if not __package__:
        _provide_nbllm()

    from nbllm.session.tuning.worker import main

    main()
