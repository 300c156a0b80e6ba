"""The first notebook as a person sees it: JupyterLab in a browser."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.notebook.kernel import ROOT, environment

pytestmark = [pytest.mark.model, pytest.mark.browser]

TOKEN = "for-this-test-only"
TIMEOUT_MS = 60_000
ATTACK = """\
from nbllm.notebook.display import answer_view
from nbllm.core import Chunk
from nbllm.session.response import Response
text = "| a |\\n|---|\\n| `x | <img src=x onerror=window.attacked=1> |\\n\\n<script>window.attacked=1</script> **end**"
view = answer_view(get_ipython())
view.add(Chunk(text=text))
view.finish(Response(text=text), {})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The notebook without its outputs, so that what is seen was made now, and with a cell that attacks."""
    folder = tmp_path_factory.mktemp("lab")
    notebook: Any = nbformat.read(ROOT / "notebooks" / "01-chat.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.cells.insert(4, nbformat.v4.new_code_cell(ATTACK, id="attack"))  # type: ignore[no-untyped-call]
    nbformat.write(notebook, folder / "01-chat.ipynb")  # type: ignore[no-untyped-call]
    return folder


@pytest.fixture(scope="module")
def lab_url(folder: Path, smollm2_path: Path) -> Iterator[str]:
    """JupyterLab on a free port, which it says itself in its runtime file once it listens."""
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.port=0"]
    command += [f"--IdentityProvider.token={TOKEN}", "--LabApp.news_url=", "--LabApp.check_for_updates_class="]
    server = subprocess.Popen(
        [*command[:-2], "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={folder}", command[-3]],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    try:
        for line in server.stderr:
            if "is running at" in line:
                break
        url = next(part for line in server.stderr for part in line.split() if part.startswith("http://"))
        yield url.partition("/lab")[0].partition("/?")[0]
    finally:
        server.terminate()
        server.communicate(timeout=30)


@pytest.fixture
def page(chromium_path: str) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 1000})
        page.set_default_timeout(TIMEOUT_MS)
        yield page
        browser.close()


def run_cells(page: Page, count: int) -> None:
    page.locator(".jp-Notebook .jp-Cell").first.click()
    for _ in range(count):
        page.keyboard.press("Shift+Enter")


def test_cell_streams_a_rendered_answer_that_cannot_attack(
    page: Page, lab_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    page.goto(f"{lab_url}/lab/tree/01-chat.ipynb?token={TOKEN}")
    cells = page.locator(".jp-Notebook .jp-Cell")
    expect(page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]")).to_be_visible(timeout=TIMEOUT_MS)
    run_cells(page, 5)
    answer = cells.nth(3).locator(".jp-OutputArea-output")
    expect(answer.locator("small").first).to_be_visible(timeout=TIMEOUT_MS)
    expect(answer).to_contain_text("The capital of France is Paris.")
    expect(answer.locator("small")).to_have_count(2)
    attacked = cells.nth(4).locator(".jp-OutputArea-output")
    expect(attacked.locator("strong")).to_have_text("end")
    assert attacked.locator("img, script").count() == 0
    assert page.evaluate("window.attacked") is None
    picture = tmp_path / "chat.png"
    page.screenshot(path=picture)
    assert picture.stat().st_size > 10_000
