"""A notebook server with the extension, in this process: `site` for what goes over HTTP, `jp_…` for what Jupyter does.

The plugin's fixtures are imported here, and not declared as a plugin of the whole suite: it would import
jupyter_server for every run of any test, and set up an event loop around each.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_jupyter.jupyter_server import *  # noqa: F403  # its fixtures need one another, and its two hooks
from traitlets.config import Config

from tests.server.serving import Site


@pytest.fixture  # type: ignore[no-redef]  # it takes the place of the plugin's
def jp_server_config() -> Config:
    return Config({"ServerApp": {"jpserver_extensions": {"nbllm": True}}})


@pytest.fixture(scope="session")
def _one_site(tmp_path_factory: pytest.TempPathFactory, _isolated_session: None) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site") / "folder"  # what is beside it would have left it
    folder.mkdir()
    with Site(folder) as site:
        yield site


@pytest.fixture
def site(_one_site: Site) -> Iterator[Site]:
    """A server over toy models, as good as new."""
    _one_site.listen_to_log()
    yield _one_site
    _one_site.reset()
