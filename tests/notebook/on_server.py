"""A kernel that a real notebook server with the extension has started, as it is when a person opens a notebook."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from jupyter_client.manager import AsyncKernelManager

from tests.notebook.kernel import environment

TOKEN = "for-this-test-only"
_WAIT_S = 60


class ServedKernel(AsyncKernelManager):
    """A kernel that is somebody else's: this manager neither starts nor ends it."""

    @property
    def has_kernel(self) -> bool:
        return True


@contextmanager
def served_kernel(folder: Path) -> Iterator[ServedKernel]:
    """Start the server and the kernel in `folder`, which holds their files too; end both."""
    runtime = folder / "runtime"
    with _server(folder, runtime) as url:
        kernel_id = _asked(f"{url}api/kernels", {"name": "python3"})["id"]
        manager = ServedKernel(owns_kernel=False, connection_file=str(runtime / f"kernel-{kernel_id}.json"))
        manager.load_connection_file()
        yield manager
        manager.context.destroy(linger=0)


@contextmanager
def _server(folder: Path, runtime: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "jupyter_server", "--ServerApp.jpserver_extensions={'nbllm': True}"]
    command += ["--port=0", "--ip=127.0.0.1", "--no-browser", "--allow-root", f"--ServerApp.root_dir={folder}"]
    env = {**environment(), "JUPYTER_RUNTIME_DIR": os.fspath(runtime), "JUPYTER_TOKEN": TOKEN}
    env["NBLLM_RUNTIME_DIR"] = os.fspath(runtime / "nbllm")
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        log = server.stderr
        url = next((found[0] for line in log if (found := re.search(r"http://127[\d.]+:\d+/", line))), None)
        reader = threading.Thread(target=lambda: list(log))  # a pipe that nobody reads fills up
        reader.start()
        try:
            assert url is not None, "the notebook server did not start"
            _wait_for(url)
            yield url
        finally:
            server.terminate()
            server.wait(timeout=_WAIT_S)
            reader.join()


def _wait_for(url: str) -> None:
    """It says where it listens a moment before it does."""
    port = int(url.rstrip("/").rpartition(":")[2])
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the notebook server does not listen"
            time.sleep(0.05)


def _asked(url: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"Authorization": f"token {TOKEN}", "Content-Type": "application/json"}
    with urlopen(Request(url, json.dumps(body).encode(), headers), timeout=_WAIT_S) as answer:
        found: dict[str, Any] = json.load(answer)
        return found
