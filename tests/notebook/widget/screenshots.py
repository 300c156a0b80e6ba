"""Makes the pictures of the widget in README.md, by day and by night: `python -m tests.notebook.widget.screenshots`."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.notebook import front_ends
from tests.notebook.kernel import ROOT
from tests.notebook.widget.in_front_end import Front, Served, opened

PICTURES = {"Light": "widget.png", "Dark": "widget-night.png"}
WIDTH, HEIGHT, MARGIN = 1070, 1200, 12
CELLS = {
    "chat": """\
import nbllm

nbllm.ChatWidget("smollm2", system="You are a helpful assistant.", temperature=0)""",
}
QUESTIONS = (
    "What is the capital of France?",
    "Write a Python function is_even(n) in a code block.",
)
_QUIET = """
.jp-Notebook .jp-Cell { border-color: transparent !important; box-shadow: none !important; }
.jp-cell-toolbar, .jp-Notebook-footer, .jp-Collapser { display: none !important; }
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name, front_ends.attacker() as nobody:
        folder = Path(name)
        os.environ.update({variable: str(folder / ".own" / variable) for variable in _OWN})
        (folder / "work").mkdir()
        variables = {"JUPYTER_CONFIG_PATH": str(ROOT / "jupyter-config")}
        chromium = shutil.which("chromium")
        if chromium is None:
            raise SystemExit("no Chromium on the PATH: apt-get install chromium")
        with (
            front_ends.browser(chromium, nobody) as browser,
            front_ends.server(folder / "work", folder / "settings", variables) as url,
        ):
            served = Served(url, folder / "work")
            with opened(browser, served, served.write("chat.ipynb", CELLS), "/doc/tree") as lab:
                lab.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
                _talk(lab)
                for theme, picture in PICTURES.items():
                    _wear(lab.page, theme)
                    _take(lab, ROOT / ".github" / picture)


_OWN = (
    *("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTERLAB_WORKSPACES_DIR", "NBLLM_CHATS_DIR", "NBLLM_MODELS_DIR"),
    *("IPYTHONDIR", "NBLLM_RUNTIME_DIR"),
)
"""Nobody's recent files, and no chats or models of the one who runs this."""


def _talk(lab: Front) -> None:
    chat = lab.chat("chat")
    for question in QUESTIONS:
        chat.ask(question)
    expect(chat.root.locator(".nbllm-block").first).to_be_visible()
    expect(chat.button("status")).to_have_text("Answer complete")
    chat.text.fill("And is_odd?")


def _wear(page: Page, theme: str) -> None:
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    for item in ("Theme", f"JupyterLab {theme}"):
        page.locator(".lm-Menu-item").get_by_text(item, exact=True).click()
    expect(page.locator("body")).to_have_attribute("data-jp-theme-name", f"JupyterLab {theme}")


def _take(lab: Front, picture: Path) -> None:
    """The notebook from its first cell to the end of the chat."""
    page = lab.page
    page.add_style_tag(content=_QUIET)
    page.mouse.move(0, 0)
    panel, first = page.locator(".jp-NotebookPanel").bounding_box(), lab.cell("chat").bounding_box()
    last = lab.shown("chat").root.bounding_box()
    if panel is None or first is None or last is None:
        raise RuntimeError("there is no chat on the page")
    top, bottom = first["y"] - MARGIN, last["y"] + last["height"] + MARGIN
    page.screenshot(
        path=picture,
        clip={"x": panel["x"], "y": top, "width": panel["width"], "height": bottom - top},
        animations="disabled",
    )


if __name__ == "__main__":
    main()
