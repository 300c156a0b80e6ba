"""What the processes have in common that this one starts: how they begin, where they stand, how their end is told."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from nbllm.errors import EngineError


def command(module: str) -> list[str]:
    """What runs `main` of a module of this very nbllm. Raises EngineError where there is no Python to run it."""
    if not sys.executable:
        raise EngineError("a runner needs a Python to run in, and this program does not name one (sys.executable)")
    return [sys.executable, "-P", os.fspath(Path(__file__).with_name("__main__.py")), module]


def apart() -> dict[str, Any]:
    """Options of Popen: out of reach of what is sent to this process's group, and in no working folder of anybody's."""
    place: dict[str, Any] = {"cwd": os.path.abspath(os.sep)}
    if sys.platform == "win32":
        return {**place, "creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {**place, "start_new_session": True}


def no_core_file() -> None:
    """Called in the child: a core file would hold gigabytes of weights, and what people asked."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def ending(returncode: int | None) -> str:
    """How a process ended, as what is said of it."""
    if returncode is None:
        return "does not answer any more"
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    memory = " (as the system does when memory runs out)" if name == "SIGKILL" else ""
    return f"was ended by {name}{memory}"
