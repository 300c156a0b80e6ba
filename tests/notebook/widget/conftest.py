"""One notebook server for all tests of the widget in a real front end: to start it takes longer than most of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.notebook import front_ends, hostile
from tests.notebook.front_ends import Attacker
from tests.notebook.kernel import ROOT
from tests.notebook.widget.in_front_end import Served

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with the extension, as `pip install` would enable it, a folder that attacks, and one for the chats."""
    folder = tmp_path_factory.mktemp("served")
    hostile.furnish(folder)
    variables = hostile.variables(folder) | {
        "JUPYTER_CONFIG_PATH": str(ROOT / "jupyter-config"),
        "NBLLM_RUNTIME_DIR": str(folder / "run"),
        "NBLLM_CHATS_DIR": str(folder / "chats"),
    }
    with front_ends.server(folder, tmp_path_factory.mktemp("settings"), variables) as url:
        yield Served(url, folder)


@pytest.fixture(scope="module")
def attacker() -> Iterator[Attacker]:
    with front_ends.attacker() as attacker:
        yield attacker


@pytest.fixture(scope="module")
def browser(chromium_path: str, attacker: Attacker) -> Iterator[BrowserContext]:
    with front_ends.browser(chromium_path, attacker) as browser:
        yield browser
