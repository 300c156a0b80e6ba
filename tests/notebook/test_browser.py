"""The first notebook as a person sees it: JupyterLab in a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright

from tests.notebook.front_ends import TOKEN, server
from tests.notebook.kernel import ROOT

pytestmark = [pytest.mark.model, pytest.mark.browser]

TIMEOUT_MS = 40_000
ATTACK = """\
from nbllm.notebook.display import answer_view
from nbllm.core import Chunk
from nbllm.session.response import Response
text = "| a |\\n|---|\\n| `x | <img src=x onerror=window.attacked=1> |\\n\\n<script>window.attacked=1</script> **end**"
view = answer_view(get_ipython())
view.add(Chunk(text=text))
view.finish(Response(text=text), [], {})
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
def lab_url(folder: Path, smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(folder, tmp_path_factory.mktemp("settings"), {}) as url:
        yield url


@pytest.fixture
def page(chromium_path: str) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 1000})
        page.set_default_timeout(TIMEOUT_MS)
        yield page
        browser.close()


def run(cell: Locator) -> Locator:
    """Run a code cell to its end, and give its outputs."""
    cell.locator(".cm-content").click()
    cell.page.keyboard.press("Shift+Enter")
    expect(cell.locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]:"), timeout=TIMEOUT_MS)
    return cell.locator(".jp-OutputArea-output")


def test_cell_streams_a_rendered_answer_that_cannot_attack(page: Page, lab_url: str, tmp_path: Path) -> None:
    page.goto(f"{lab_url}/lab/tree/01-chat.ipynb?token={TOKEN}")
    expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=TIMEOUT_MS)
    cells = page.locator(".jp-Notebook .jp-Cell")
    run(cells.nth(1))
    answer = run(cells.nth(3))
    expect(answer.locator("small").first).to_be_visible(timeout=TIMEOUT_MS)
    expect(answer).to_contain_text("The capital of France is Paris.")
    expect(answer.locator("small")).to_have_count(2)
    attacked = run(cells.nth(4))
    expect(attacked.locator("strong")).to_have_text("end")
    assert attacked.locator("img, script").count() == 0
    assert page.evaluate("window.attacked") is None
    picture = tmp_path / "chat.png"
    page.screenshot(path=picture)
    assert picture.stat().st_size > 10_000
