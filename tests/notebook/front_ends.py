"""JupyterLab, Notebook 7 and a page from nbconvert in a browser that notes whatever an output should not do."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, Dialog, Locator, Page, Request, WebSocket, expect, sync_playwright

from nbllm.frames.compare.style import GRID
from tests.notebook.kernel import environment

TOKEN = "for-this-test-only"
TIMEOUT_MS = 120_000
OUTPUT = ".jp-OutputArea-output"

# What Markdown, maths and the front ends' own rendering of text consist of, and what a grid adds to that. Everything
# else came from an attack.
_WATCH = (
    f"const GRID = {json.dumps(GRID.strip())};"
    + r"""
const OUTPUT = ".jp-OutputArea-output";
const TAGS = new Set(("p h1 h2 h3 h4 h5 h6 ul ol li blockquote pre code em strong del a table thead tbody tr th td hr "
  + "br span div dl dt dd details summary small").split(" "));
const FINE = /^(https?:|mailto:|#)/i;
const CHAT = `${OUTPUT} > .lm-Widget > section.nbllm-chat`;
const IN_ANSWER = "article[data-role=assistant] .nbllm-body *";
const IN_TEXT = "article[data-role=user] .nbllm-body *, .nbllm-tail *, .nbllm-reasoning > div *, .nbllm-foot *";
const NODES = new Set(("p h1 h2 h3 h4 h5 h6 ul ol li blockquote pre code em strong s a table thead tbody tr th td hr "
  + "br span div input button").split(" "));
const CONTROLS = new Set(("section div form fieldset legend label select optgroup option input textarea button article "
  + "h3 details summary span p ul li").split(" "));
const NODE_ATTRIBUTES = new Set(("class title href target rel start align data-language data-display role aria-label "
  + "tabindex type disabled checked dir data-do").split(" "));
const CONTROL_ATTRIBUTES = new Set(("class title id for name value label placeholder autocomplete type min max step "
  + "rows hidden disabled multiple novalidate open dir tabindex role style data-theme data-phase data-gone data-role "
  + "data-turn data-id data-index data-do data-change data-format data-lm-suppress-shortcuts "
  + "data-jp-suppress-context-menu").split(" "));
const OWN_STYLE = /^(--used: [\d.]+%;|height: ([\d.]+px|auto);)?$/;
const OWN_CLASS = /^(nbllm-[a-z-]+|language-[\w+#.-]{1,40}|[a-z][a-z0-9]{0,3}|)$/;
const isTypeset = (element) => element.closest(".nbllm-math mjx-container") !== null;
window.foreignInChat = (element) => {
  const inAnswer = element.matches(IN_ANSWER), tag = element.localName, found = [];
  const tags = inAnswer ? NODES : CONTROLS, attributes = inAnswer ? NODE_ATTRIBUTES : CONTROL_ATTRIBUTES;
  if (element.matches(IN_TEXT) || !tags.has(tag) || (inAnswer && tag === "button" && element.dataset.do !== "copyCode"))
    found.push(`chat: ${tag}`);
  for (const { name, value } of element.attributes)
    if (!(attributes.has(name) || (!inAnswer && name.startsWith("aria-")))
        || (name === "href" && !/^(https?|mailto):/.test(value))
        || (name === "class" && !value.split(/\s+/).every((one) => OWN_CLASS.test(one)))
        || (["id", "for"].includes(name) && !value.startsWith("nbllm-"))
        || (name === "style" && !OWN_STYLE.test(value)))
      found.push(`chat: ${tag} ${name}=${value}`);
  return found;
};
window.foreign = (root) => [root, ...root.querySelectorAll("*")].flatMap((element) =>
  element.closest(CHAT) && !isTypeset(element) ? window.foreignInChat(element) : window.foreignIn(element, root));
window.foreignIn = (element, root) => {
  const tag = element.localName, found = [];
  const inMaths = element.closest("mjx-container") !== null;
  const isTask = tag === "input" && element.type === "checkbox" && element.disabled;
  const isSealed = tag === "iframe" && element.getAttribute("sandbox") === "" && !element.hasAttribute("src");
  const isFrame = element.matches("style[scoped]:has(+ table.dataframe)");  // pandas brings its own
  const isGrid = element.matches("div.nbllm-grid > style[scoped]:has(+ table)") && element.textContent.trim() === GRID;
  const isDifference = element.matches("td > div ins") && element.attributes.length === 0;
  if (!TAGS.has(tag) && !inMaths && !isTask && !isSealed && !isFrame && !isGrid && !isDifference)
    found.push(tag);
  for (const { name, value } of element.attributes) {
    const isAddress = ["href", "xlink:href", "action", "formaction", "ping", "srcset", "background"].includes(name);
    const isAlignment = name === "style" && (/^text-align: ?(left|center|right);?$/.test(value)
      || (element.matches("th, td") && /^text-align: ?left; ?vertical-align: ?top;?$/.test(value)));
    if (name.startsWith("on") || name.startsWith("data-command") || name === "src"
        || (isAddress && !FINE.test(value))
        || (name === "style" && !isAlignment && !inMaths && TAGS.has(tag) && element !== root))
      found.push(`${tag} ${name}=${value}`);
  }
  return found;
};
window.seen = new Set();
window.changed = 0;
const watch = new MutationObserver((records) => {
  window.changed = performance.now();
  for (const { addedNodes } of records) for (const node of addedNodes)
    if (node.nodeType === 1) {
      const outputs = node.closest(OUTPUT) ? [node] : node.querySelectorAll(OUTPUT);
      for (const output of outputs) for (const found of window.foreign(output)) window.seen.add(found);
    }
});
watch.observe(document, { childList: true, subtree: true });
"""
)


@dataclass(slots=True)
class Attacker:
    """Listens where every host name of `.invalid` leads, and counts who comes."""

    port: int
    connections: list[str] = field(default_factory=list)


@contextmanager
def attacker() -> Iterator[Attacker]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = Attacker(listener.getsockname()[1])

        def listen() -> None:
            while True:
                try:
                    connection, address = listener.accept()
                except OSError:
                    return
                host.connections.append(str(address))
                connection.close()

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield host
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def browser(executable: str, attacker: Attacker) -> Iterator[BrowserContext]:
    """A browser that keeps what it loaded from one page to the next."""
    rules = f"MAP *.invalid 127.0.0.1:{attacker.port}, MAP *.example 127.0.0.1:{attacker.port}"
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", f"--host-resolver-rules={rules}"]
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield browser.new_context(viewport={"width": 1100, "height": 1400})
        browser.close()


@contextmanager
def server(folder: Path, settings: Path, variables: Mapping[str, str]) -> Iterator[str]:
    """JupyterLab and Notebook 7 on a port that is free, as the server says itself once it listens."""
    _settle(settings)
    options = {"port": "0", "ip": "127.0.0.1", "root_dir": str(folder), "open_browser": "False", "allow_root": "True"}
    command = [sys.executable, "-m", "jupyterlab", f"--IdentityProvider.token={TOKEN}"]
    command += [f"--ServerApp.{name}={value}" for name, value in options.items()]
    env = environment() | {"JUPYTERLAB_SETTINGS_DIR": str(settings), **variables}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        log = server.stderr
        url = next((found[0] for line in log if (found := re.search(r"http://[\d.]+:\d+", line))), None)
        reader = threading.Thread(target=lambda: list(log))  # a pipe that nobody reads fills up
        reader.start()
        try:
            assert url is not None, "JupyterLab did not start"
            yield url
        finally:
            server.terminate()
            server.wait(timeout=30)
            reader.join()


def _settle(settings: Path) -> None:
    """No questions about news, and every cell in the page."""
    own = {
        "@jupyterlab/apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
        "@jupyterlab/notebook-extension/tracker": '{"windowingMode": "none"}',
    }
    for name, text in own.items():
        path = settings / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


class Watched:
    """A page, and all that happens in it.

    Args:
        allowed: beginnings of addresses that the page may ask for.
        refused: such addresses too, which are not there: a page from nbconvert names libraries on far servers.
    """

    def __init__(self, browser: BrowserContext, allowed: tuple[str, ...], refused: tuple[str, ...] = ()) -> None:
        self.page: Page = browser.new_page()
        self.page.set_default_timeout(TIMEOUT_MS)
        self.events: list[str] = []
        self.is_kernel_there = False
        self._requests: list[Request] = []
        self._allowed = (*allowed, *refused)
        for address in refused:
            self.page.route(f"{address}**", lambda route: route.abort())
        self.page.on("dialog", self._note_dialog)
        self.page.on("request", self._note_request)
        self.page.on("websocket", self._note_socket)
        self.page.on("popup", lambda _: self.events.append("popup"))
        self.page.add_init_script(_WATCH)

    def _note_dialog(self, dialog: Dialog) -> None:
        if dialog.type != "beforeunload":
            self.events.append(f"dialog {dialog.message}")
        dialog.accept()

    def _note_request(self, request: Request) -> None:
        if self._is_foreign(request.url):
            self._requests.append(request)

    def _is_foreign(self, url: str) -> bool:
        return urlsplit(url).scheme not in ("data", "blob", "about") and not url.startswith(self._allowed)

    def _note_socket(self, socket: WebSocket) -> None:
        if self._is_foreign(socket.url):
            self.events.append(f"socket {socket.url}")
        socket.on("framereceived", self._note_frame)

    def _note_frame(self, frame: str | bytes) -> None:
        self.is_kernel_there |= b"kernel_info_reply" in (frame.encode() if isinstance(frame, str) else frame)

    @property
    def cells(self) -> Locator:
        return self.page.locator(".jp-Cell.jp-CodeCell")

    def attacks(self) -> list[str]:
        """Everything that an output did or holds and must not."""
        self.page.wait_for_function("performance.now() - window.changed > 400")
        seen: list[str] = self.page.evaluate(
            "(selector) => [...window.seen, ...[...document.querySelectorAll(selector)].flatMap(window.foreign)]",
            OUTPUT,
        )
        ran = self.page.evaluate("window.attacked")
        return [*self.events, *self._sent(), *sorted(set(seen)), *([f"ran {ran}"] if ran else [])]

    def _sent(self) -> list[str]:
        """Requests that left the page. What a policy forbids is announced as well, and then fails."""
        for _ in range(300):  # a busy machine is late to say why
            if all(request.failure for request in self._requests):
                break
            self.page.wait_for_timeout(50)
        return [f"request {request.url}" for request in self._requests if request.failure != "csp"]

    def close(self) -> None:
        self.page.close()


def open_notebook(watched: Watched, url: str, name: str) -> None:
    """Open a notebook in JupyterLab or Notebook 7, and wait for its kernel: cells that run before it is there are lost.

    Args:
        url: of the server, with the front end's path: `/lab/tree` or `/notebooks`.
    """
    watched.page.goto(f"{url}/{name}?reset&token={TOKEN}")
    deadline = time.monotonic() + TIMEOUT_MS / 1000
    while not watched.is_kernel_there and time.monotonic() < deadline:
        watched.page.wait_for_timeout(50)
    expect(watched.page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]")).to_be_attached(timeout=TIMEOUT_MS)


def run_all(watched: Watched) -> None:
    """Run every cell as a person does, by the menu, and wait for the last one."""
    page = watched.page
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    last = watched.cells.last.locator(".jp-InputPrompt")
    expect(last).to_have_text(re.compile(r"\[\d+\]:"), timeout=TIMEOUT_MS)


def save(watched: Watched) -> None:
    with watched.page.expect_response(lambda answer: answer.request.method == "PUT" and "/api/contents/" in answer.url):
        watched.page.keyboard.press("Control+s")
