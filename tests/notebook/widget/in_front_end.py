"""The widget in JupyterLab and Notebook 7: a notebook's cells by name, and what a person does with a chat."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import nbformat
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.notebook import front_ends
from tests.notebook.front_ends import OUTPUT, TOKEN, Watched

LAB = "/lab/tree"
NOTEBOOK_7 = "/notebooks"
VIEW = "application/vnd.jupyter.widget-view+json"

TIMEOUT_MS = 20_000

expect.set_options(timeout=TIMEOUT_MS)


class Served(NamedTuple):
    """A notebook server, and the folder whose notebooks it has."""

    url: str
    folder: Path

    def write(self, name: str, cells: Mapping[str, str]) -> Path:
        """A notebook that was not run."""
        new: Any = nbformat.v4
        kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
        made = [new.new_code_cell(source, id=cell.replace(" ", "-")) for cell, source in cells.items()]
        path = self.folder / name
        nbformat.write(new.new_notebook(cells=made, metadata={"kernelspec": kernel}), path)  # type: ignore[no-untyped-call]
        return path

    def end_kernels(self) -> None:
        """As the front end's menu does, and without a page."""
        import json

        with urlopen(self._request("GET", "")) as answer:
            kernels = json.load(answer)
        for kernel in kernels:
            urlopen(self._request("DELETE", f"/{kernel['id']}")).close()

    def _request(self, method: str, path: str) -> Request:
        headers = {"Authorization": f"token {TOKEN}"}
        return Request(f"{self.url}/api/kernels{path}", method=method, headers=headers)


@dataclass(frozen=True, slots=True)
class Chat:
    """One view of a widget."""

    root: Locator

    @property
    def page(self) -> Page:
        return self.root.page

    @property
    def text(self) -> Locator:
        return self.root.locator(".nbllm-composer textarea")

    @property
    def messages(self) -> Locator:
        return self.root.locator("article:not([hidden])")

    @property
    def answers(self) -> Locator:
        """Those that have ended."""
        return self.root.locator("article[data-role=assistant].nbllm-settled")

    @property
    def live(self) -> Locator:
        """What there is of the answer that is coming."""
        return self.root.locator("article.nbllm-live")

    def button(self, name: str) -> Locator:
        return self.root.locator(f".nbllm-{name}")

    def send(self, text: str) -> None:
        self.text.fill(text)
        self.text.press("Enter")

    def ask(self, text: str) -> Locator:
        """Send a question, and wait for the end of its answer."""
        count = self.answers.count()
        self.send(text)
        expect(self.answers).to_have_count(count + 1)
        self.is_idle()
        return self.answers.last

    def is_idle(self) -> None:
        expect(self.root).to_have_attribute("data-phase", "idle")

    def is_writing(self) -> None:
        """An answer is on its way, and some of it is there."""
        written = self.live.locator(".nbllm-body, .nbllm-tail").filter(has_text=re.compile(r"\w"))
        expect(written.first).to_be_visible()


class Front:
    """A notebook in a front end."""

    def __init__(self, watched: Watched, path: Path) -> None:
        self.watched, self.path = watched, path
        self._names = [cell.id.replace("-", " ") for cell in read(path).cells]

    @property
    def page(self) -> Page:
        return self.watched.page

    def cell(self, name: str) -> Locator:
        return self.watched.cells.nth(self._names.index(name))

    def start(self, name: str) -> Locator:
        """Run a cell, and do not wait for it."""
        cell = self.cell(name)
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Shift+Enter")
        return cell

    def run(self, name: str) -> Locator:
        """Run a cell to its end, and give its output."""
        cell = self.start(name)
        expect(cell.locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]:"))
        return cell.locator(OUTPUT)

    def chat(self, name: str) -> Chat:
        """Run a cell that shows a widget."""
        self.run(name)
        return self.shown(name)

    def shown(self, name: str) -> Chat:
        chat = Chat(self.cell(name).locator(".nbllm-chat"))
        expect(chat.text).to_be_enabled()
        return chat

    def saved(self) -> Any:
        """Save, and read the file."""
        front_ends.save(self.watched)
        return read(self.path)


@contextmanager
def opened(browser: BrowserContext, served: Served, path: Path, front_end: str = LAB) -> Iterator[Front]:
    watched = Watched(browser, (served.url, served.url.replace("http", "ws")))
    watched.page.set_default_timeout(TIMEOUT_MS)
    front_ends.open_notebook(watched, served.url + front_end, path.name)
    yield Front(watched, path)
    watched.close()


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
