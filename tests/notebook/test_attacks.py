"""Bar: nothing that a model, a variable, a cell, a name or an error says runs, loads or leads astray in a front end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from nbformat.sign import NotebookNotary
from playwright.sync_api import expect

from tests.notebook import front_ends, hostile
from tests.notebook.front_ends import OUTPUT, Attacker, Watched
from tests.notebook.kernel import environment

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

FRONT_ENDS = {"lab": "/lab/tree", "notebook": "/notebooks"}
CONTROL = f"{hostile.IMG}<script>window.attacked = 1</script><img src={hostile.FAR}/control.png><p onclick=a()>"

CONTROL_EXPRESSION = r"- `a\n- <script>alert\(1\)</script>` !\[b\]\(https://attacker\.invalid/c\.png\) end"


def notebook_of(cells: list[hostile.Cell]) -> Any:
    """An unexecuted notebook."""
    made = [
        nbformat.v4.new_code_cell(  # type: ignore[no-untyped-call]
            cell.source, id=f"cell-{number}", metadata={"tags": ["raises-exception"]} if cell.fails else {}
        )
        for number, cell in enumerate(cells)
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernel})  # type: ignore[no-untyped-call]


def control() -> Any:
    """What was not made safe; the watch has to notice all of it."""
    notebook = notebook_of([hostile.Cell("1")])
    notebook.cells[0].execution_count = 1
    data = {"text/markdown": CONTROL, "text/plain": "control"}
    notebook.cells[0].outputs = [nbformat.v4.new_output("display_data", data=data)]  # type: ignore[no-untyped-call]
    return notebook


def write(notebook: Any, path: Path, *, is_trusted: bool) -> None:
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
    if is_trusted:
        NotebookNotary().sign(notebook)  # type: ignore[no-untyped-call]
    assert trusts(path) is is_trusted


def trusts(path: Path) -> bool:
    """Whether a server would show its outputs as those of cells that were run here."""
    return bool(NotebookNotary().check_signature(read(path)))  # type: ignore[no-untyped-call]


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the notebooks are, and files that attack."""
    folder = tmp_path_factory.mktemp("attacks")
    hostile.furnish(folder)
    return folder


@pytest.fixture(scope="module")
def attacker() -> Iterator[Attacker]:
    with front_ends.attacker() as attacker:
        yield attacker


@pytest.fixture(scope="module")
def browser(chromium_path: str, attacker: Attacker) -> Iterator[BrowserContext]:
    with front_ends.browser(chromium_path, attacker) as browser:
        yield browser


@pytest.fixture(scope="module")
def url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with front_ends.server(folder, tmp_path_factory.mktemp("settings"), hostile.variables(folder)) as url:
        yield url


def check(watched: Watched, attacker: Attacker, cells: list[hostile.Cell], *, is_trusted: bool = True) -> None:
    """Nothing attacks, and everything is there to be read."""
    assert watched.attacks() == []
    assert attacker.connections == []
    outputs = watched.cells.evaluate_all(
        """(cells, selector) => cells.map((cell) => {
            const outputs = [...cell.querySelectorAll(selector)];
            const all = (tag) => outputs.flatMap((output) => [...output.querySelectorAll(tag)]);
            return {
                text: outputs.map((output) => output.innerText).join("\\n"),
                listings: all("pre").map((pre) => pre.textContent),
                frames: all("iframe").length,
            };
        })""",
        OUTPUT,
    )
    assert len(outputs) == len(cells)
    for cell, shown in zip(cells, outputs, strict=True):
        missing = [text for text in cell.texts if text not in shown["text"]]
        assert not missing, (cell.source, missing, shown["text"])
        if cell.listings is not None:
            assert [listing.rstrip("\n") for listing in shown["listings"]] == list(cell.listings), cell.source
        assert shown["frames"] == (cell.num_frames if is_trusted else 0), cell.source


@pytest.fixture(scope="module")
def ran(folder: Path, url: str, browser: BrowserContext, attacker: Attacker) -> Path:
    """The notebook of all attacks, run and saved in JupyterLab, which was watched meanwhile."""
    cells, path = hostile.cells(), folder / "attacks.ipynb"
    write(notebook_of(cells), path, is_trusted=False)
    with in_front_end(browser, url, FRONT_ENDS["lab"], path) as watched:
        front_ends.run_all(watched)
        check(watched, attacker, cells)
        front_ends.save(watched)
    assert trusts(path)
    return path


@pytest.mark.parametrize(
    ("front_end", "is_trusted"),
    [("lab", True), ("lab", False), ("notebook", False)],
    ids=["lab, trusted", "lab, somebody else's", "notebook, somebody else's"],
)
def test_hostile_notebook_is_inert_and_readable(
    front_end: str, is_trusted: bool, ran: Path, url: str, browser: BrowserContext, attacker: Attacker
) -> None:
    """Notebook 7 shows outputs with JupyterLab's own code, so that running all of them in both would show no more."""
    copy, path = read(ran), ran.with_name(f"{front_end}-{is_trusted}.ipynb")
    if not is_trusted:
        copy.metadata["of"] = "somebody else"
    write(copy, path, is_trusted=is_trusted)
    with in_front_end(browser, url, FRONT_ENDS[front_end], path) as watched:
        check(watched, attacker, hostile.cells(), is_trusted=is_trusted)


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_what_is_not_made_safe_is_noticed(
    front_end: str, folder: Path, url: str, browser: BrowserContext, attacker: Attacker
) -> None:
    """The other tests can fail."""
    path = folder / f"{front_end}-control.ipynb"
    write(control(), path, is_trusted=True)
    with in_front_end(browser, url, FRONT_ENDS[front_end], path) as watched:
        check_control(watched, attacker)


@contextmanager
def in_front_end(browser: BrowserContext, url: str, front_end: str, path: Path) -> Iterator[Watched]:
    watched = Watched(browser, (url, url.replace("http", "ws")))
    front_ends.open_notebook(watched, url + front_end, path.name)
    yield watched
    watched.page.close()


def check_control(watched: Watched, attacker: Attacker) -> None:
    expect(watched.page.locator(f"{OUTPUT} img").last).to_be_attached()
    found = " ".join(watched.attacks())
    for trace in (
        "dialog 1",
        "request https://attacker.invalid/control.png",
        "img onerror",
        "script",
        "p onclick",
        "ran 1",
    ):
        assert trace in found
    assert attacker.connections
    attacker.connections.clear()


def executed(notebook: Any, folder: Path) -> Any:
    client = NotebookClient(notebook, timeout=100, resources={"metadata": {"path": folder}})
    client.execute(env=environment() | hostile.variables(folder))
    return notebook


def exported(notebook: Any, path: Path) -> tuple[str, ...]:
    """Write nbconvert's page, and give the addresses of the libraries that it asks for."""
    exporter = HTMLExporter()  # type: ignore[no-untyped-call]
    page, _ = exporter.from_notebook_node(notebook)
    path.write_text(page)
    return (exporter.require_js_url, exporter.mathjax_url, exporter.jquery_url, exporter.mermaid_js_url)


@contextmanager
def exported_page(notebook: Any, path: Path, browser: BrowserContext) -> Iterator[Watched]:
    watched = Watched(browser, (path.as_uri(),), exported(notebook, path))
    watched.page.goto(path.as_uri())
    yield watched
    watched.page.close()


def test_hostile_notebook_is_inert_and_readable_in_exported_html(
    folder: Path, browser: BrowserContext, attacker: Attacker, tmp_path: Path
) -> None:
    cells = hostile.cells()
    notebook = executed(notebook_of(cells), folder)
    with exported_page(notebook, tmp_path / "attacks.html", browser) as watched:
        check(watched, attacker, cells)
        watched.page.screenshot(path=tmp_path / "exported.png")


def test_what_is_not_made_safe_is_noticed_in_exported_html(
    browser: BrowserContext, attacker: Attacker, tmp_path: Path
) -> None:
    with exported_page(control(), tmp_path / "control.html", browser) as watched:
        check_control(watched, attacker)


@pytest.mark.model
@pytest.mark.usefixtures("smollm2_path")
def test_real_model_that_is_made_to_attack_is_inert(
    folder: Path, browser: BrowserContext, attacker: Attacker, tmp_path: Path
) -> None:
    cells = [
        hostile.Cell("%load_ext nbllm"),
        hostile.Cell(f"%%chat --no-history -o choice {json.dumps([hostile.IMG])!r}\nhi", (hostile.IMG, "tokens in")),
        hostile.Cell(f"%%chat --no-history -o regex {CONTROL_EXPRESSION!r}\nhi", ("end", "tokens in")),
    ]
    notebook = executed(notebook_of(cells), folder)
    with exported_page(notebook, tmp_path / "real.html", browser) as watched:
        check(watched, attacker, cells)
