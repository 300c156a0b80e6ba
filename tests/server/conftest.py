"""A notebook server with the extension, in this process.

The plugin's fixtures are imported here, and not declared as a plugin of the whole suite: it would import
jupyter_server for every run of any test, and set up an event loop around each.
"""

from __future__ import annotations

import pytest
from pytest_jupyter.jupyter_server import *  # noqa: F403  # its fixtures need one another, and its two hooks
from traitlets.config import Config


@pytest.fixture  # type: ignore[no-redef]  # it takes the place of the plugin's
def jp_server_config() -> Config:
    return Config({"ServerApp": {"jpserver_extensions": {"nbllm": True}}})
