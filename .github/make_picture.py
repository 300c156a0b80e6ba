"""Makes the picture in README.md: cells of the first notebook, run in JupyterLab with the bundled model."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

FOLDER = Path(__file__).parent
NOTEBOOK = FOLDER.parent / "notebooks" / "01-chat.ipynb"
PICTURE = FOLDER / "notebook.png"
CELLS = ("load", "ask", "settings", "italy", "planets", "moons", "square")
TOKEN = "for-this-picture-only"
TIMEOUT_MS = 60_000
WIDTH, HEIGHT, MARGIN = 920, 1600, 12
SCALE = 1.4  # of the pixels, so that small text can be read
QUIET = """
.jp-Notebook .jp-Cell { border-color: transparent !important; box-shadow: none !important; }
.jp-cell-toolbar, .jp-Notebook-footer { display: none !important; }
"""
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    "@jupyterlab/notebook-extension/tracker": '{"windowingMode": "none"}',
}


def main() -> None:
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        _write_excerpt(folder / NOTEBOOK.name)
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        with _lab(folder) as url:
            page = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=SCALE)
            page.set_default_timeout(TIMEOUT_MS)
            page.goto(f"{url}/doc/tree/{NOTEBOOK.name}?token={TOKEN}")
            _run(page)
            _take(page)
        chromium.close()


def _write_excerpt(path: Path) -> None:
    """The cells of the picture, without outputs."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    by_id = {cell["id"]: cell for cell in notebook["cells"]}
    notebook["cells"] = [by_id[name] | {"outputs": [], "execution_count": None} for name in CELLS]
    path.write_text(json.dumps(notebook), encoding="utf-8")


@contextmanager
def _lab(folder: Path) -> Iterator[str]:
    """JupyterLab on a free port, with settings of its own and nobody's recent files."""
    for name, text in SETTINGS.items():
        path = folder / ".settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    own = {
        "JUPYTERLAB_SETTINGS_DIR": ".settings",
        "JUPYTERLAB_WORKSPACES_DIR": ".workspaces",
        "JUPYTER_CONFIG_DIR": ".own",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0", "--ip=127.0.0.1"]
    command += [f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={TOKEN}"]
    env = os.environ | {name: str(folder / path) for name, path in own.items()} | {"PYTHONPATH": str(FOLDER.parent)}
    with (folder / ".log").open("w") as log, subprocess.Popen(command, env=env, stderr=log) as server:
        try:
            yield _address(server, folder / ".log")
        finally:
            server.terminate()
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()


def _address(server: subprocess.Popen[bytes], log: Path) -> str:
    while server.poll() is None:
        if found := re.search(r"http://[\d.]+:\d+", log.read_text()):
            return found[0]
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()}")


def _run(page: Page) -> None:
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    last = page.locator(".jp-CodeCell").nth(len(CELLS) - 1)
    expect(last.locator(".jp-InputPrompt")).to_have_text(f"[{len(CELLS)}]:", timeout=TIMEOUT_MS)
    expect(last.locator(".jp-OutputArea small")).to_be_visible()


def _take(page: Page) -> None:
    """The notebook from its toolbar to the end of its last cell, which -x has put there."""
    page.add_style_tag(content=QUIET)
    page.mouse.move(0, 0)
    panel = page.locator(".jp-NotebookPanel").bounding_box()
    last = page.locator(".jp-CodeCell").last.bounding_box()
    if panel is None or last is None:
        raise RuntimeError("there is no notebook on the page")
    height = last["y"] + last["height"] + MARGIN - panel["y"]
    clip = {"x": panel["x"], "y": panel["y"], "width": panel["width"], "height": height}
    page.screenshot(path=PICTURE, clip=clip)  # type: ignore[arg-type]  # a FloatRect is such a dict


if __name__ == "__main__":
    main()
