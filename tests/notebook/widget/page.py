"""A bare page with the real chat.js and chat.css, and a fake anywidget model in the place of a kernel.

The page is at a `localhost` that does not exist: every request is answered here, from the widget's own files. A test
drives the model as Python would (`update`, `deliver`), and reads what the module sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, Request, Route, sync_playwright

import nbllm

STATIC = Path(nbllm.__file__).parent / "notebook" / "widget" / "static"
URL = "http://localhost/"  # a secure context, as 127.0.0.1 is: the clipboard needs one
TIMEOUT_MS = 5_000

_PAGE = """\
<!doctype html><html lang="en"><head><meta charset="utf-8"><title>A notebook</title>
<link rel="stylesheet" href="/chat.css">
<script id="jupyter-config-data" type="application/json">{"baseUrl": "/base/"}</script>
<style>body { margin: 0; background: Canvas; color: CanvasText; } main { padding: 8px; }</style>
</head><body><main></main><script src="/fake.js"></script></body></html>
"""

# What a model of anywidget 0.11 is to a module, which never sees the model itself: `initialize` and each `render` get a
# proxy of their own, and what was registered through a proxy goes when its view does.
_FAKE = """\
class FakeModel {
  constructor(traits, kernel) {
    this.traits = { ...traits, layout: {} }; this.sent = []; this.written = []; this.handlers = [];
    this.interrupts = 0; this.refusal = ""; this.deaf = false;
    this.widget_manager = kernel ? { kernel: { interrupt: async () => { this.interrupts += 1; } } } : {};
  }
  off(event, callback, context) {
    const isMeant = (one) => [event, callback, context].every((wanted, at) => !wanted || wanted === one[at]);
    this.handlers = this.handlers.filter((one) => !isMeant(one));
  }
  proxy(context) {
    return {
      get: (name) => this.traits[name],
      set: (name) => { this.written.push(name); },
      save_changes: () => { this.written.push("save_changes"); },
      send: (content) => this.send(content),
      on: (event, callback) => { for (const one of event.split(" ")) this.handlers.push([one, callback, context]); },
      off: (event, callback) => this.off(event, callback, context),
      widget_manager: this.widget_manager,
    };
  }
  send(content) {
    const message = structuredClone(content);
    this.sent.push(message);
    if (!this.deaf) queueMicrotask(() => this.deliver({ is: "got", id: message.id, refused: this.refusal }));
  }
  trigger(event, ...values) { for (const [one, held] of [...this.handlers]) if (one === event) held(...values); }
  deliver(message) { this.trigger("msg:custom", structuredClone(message), []); }
  update(traits) {
    Object.assign(this.traits, structuredClone(traits));
    for (const name of Object.keys(traits)) this.trigger(`change:${name}`, this, this.traits[name]);
    this.trigger("change", this);
  }
}
window.views = [];
window.heard = [];
for (const type of ["keydown", "keyup", "keypress", "paste", "copy", "cut", "drop", "dragover", "contextmenu"])
  document.body.addEventListener(type, (event) => window.heard.push(type));
window.leave = () => {
  for (const view of window.views.splice(0)) view.close();
  window.forget?.();
  window.model?.off(null, null, "initialize");
};
window.begin = async (traits, kernel) => {
  window.leave();
  window.heard = [];
  window.model = new FakeModel(traits, kernel);
  const { default: widget } = await import("/chat.js");
  window.forget = await widget.initialize({ model: window.model.proxy("initialize"), experimental: {} });
  return window.show();
};
window.show = async () => {
  const { default: widget } = await import("/chat.js");
  const el = document.createElement("div"), controller = new AbortController(), { model } = window;
  document.querySelector("main").append(el);
  const given = { model: model.proxy(el), el, signal: controller.signal, host: {}, experimental: {} };
  const cleanup = await widget.render(given);
  const close = () => { controller.abort("closed"); model.off(null, null, el); cleanup?.(); el.remove(); };
  window.views.push({ el, close });
  return window.views.length - 1;
};
"""

HEADER: dict[str, Any] = {
    "conversation": "main",
    "conversations": ["main", "side"],
    "model": "smollm2-135m",
    "models": [
        {"name": "smollm2-135m", "note": "loaded", "loaded": True},
        {"name": "gemma3-270m", "note": "253 MB", "loaded": False},
    ],
    "context": {"used": 512, "length": 2048},
    "settings": [
        *(
            {"name": name, "label": label, "kind": kind, "value": None, "default": default, "help": f"About {label}."}
            | {"min": low, "max": high, "step": step}
            for name, label, kind, default, low, high, step in (
                ("system", "System prompt", "text", "", None, None, None),
                ("temperature", "Temperature", "number", 0.8, 0, 2, 0.05),
                ("max_tokens", "Max tokens", "integer", 512, 1, None, 1),
                ("seed", "Seed", "integer", None, 0, None, 1),
                ("top_p", "Top p", "number", 0.95, 0, 1, 0.01),
                ("stop", "Stop at", "lines", [], None, None, None),
            )
        )
    ],
}
STATE: dict[str, Any] = {"phase": "idle", "detail": "", "error": "", "draft": "", "frozen": False}
LIMITS: dict[str, Any] = {"attachment_bytes": 1000, "attachments": 2, "images": "smollm2-135m reads text, not images"}

Json = dict[str, Any]


def question(turn: int, text: str, **more: Any) -> Json:
    plain = {"id": f"{turn}q", "turn": turn, "role": "user", "text": text, "attachments": [], "branches": None}
    return plain | more


def answer(turn: int, *blocks: Any, text: str = "", **more: Any) -> Json:
    """An assistant's message; strings among the blocks become paragraphs."""
    nodes = [["p", {}, block] if isinstance(block, str) else block for block in blocks]
    plain = {"id": f"{turn}a", "turn": turn, "role": "assistant", "text": text, "blocks": nodes, "reasoning": ""}
    return plain | {"model": "smollm2-135m", "footer": "21 tokens out", "ending": "stop", "live": ""} | more


def exchange(count: int) -> list[Json]:
    """A transcript of `count` questions and their answers."""
    pairs = [(question(turn, f"question {turn}"), answer(turn, f"answer {turn}")) for turn in range(1, count + 1)]
    return [message for pair in pairs for message in pair]


def code(*children: Any, language: str = "python") -> Any:
    return ["pre", {"class": "nbllm-code", "data-language": language}, ["code", {}, *children]]


def traits(**changed: Any) -> Json:
    """The widget's traits at the beginning; a mapping among `changed` changes a part of its trait."""
    plain: Json = {"transcript": [], "header": HEADER, "state": STATE, "stop_token": "token", "limits": LIMITS}
    merged = {
        name: plain[name] | value if isinstance(value, Mapping) and name in plain else value
        for name, value in changed.items()
    }
    return plain | merged


@dataclass
class ChatPage:
    """One page for many tests: `begin` puts a new model and its first view into it.

    Attributes:
        stops: the requests that came for the stop route.
        stop_status: what the stop route answers; 0 is a server that does not answer.
        problems: exceptions and console errors in the page.
    """

    page: Page
    stops: list[Request] = field(default_factory=list)
    stop_status: int = 204
    problems: list[str] = field(default_factory=list)

    def begin(self, *, kernel: bool = True, **changed: Any) -> Locator:
        self.stops.clear()
        self.stop_status = 204
        self.problems.clear()
        self.page.evaluate("([traits, kernel]) => window.begin(traits, kernel)", [traits(**changed), kernel])
        return self.view(0)

    def show(self) -> Locator:
        """Another view of the same model."""
        return self.view(self.page.evaluate("window.show()"))

    def view(self, index: int) -> Locator:
        return self.page.locator("main > div").nth(index)

    def close(self, index: int = 0) -> None:
        self.page.evaluate("(index) => window.views.splice(index, 1)[0].close()", index)

    def update(self, **changed: Any) -> None:
        """Traits change, as Python changes them; a mapping changes a part of its trait."""
        current = self.page.evaluate("window.model.traits")
        merged = {
            name: current[name] | value if isinstance(value, Mapping) else value for name, value in changed.items()
        }
        self.page.evaluate("(traits) => window.model.update(traits)", merged)

    def deliver(self, *messages: Json) -> None:
        self.page.evaluate("(messages) => messages.forEach((one) => window.model.deliver(one))", list(messages))

    def refuse(self, reason: str) -> None:
        self.page.evaluate("(reason) => { window.model.refusal = reason; }", reason)

    def leave(self) -> None:
        """The model goes, as it does when its widget is closed, and its views with it."""
        self.page.evaluate("window.leave()")

    def deafen(self) -> None:
        """From now on the kernel is busy: it answers nothing."""
        self.page.evaluate("() => { window.model.deaf = true; }")

    def sent(self, do: str | None = None) -> list[Json]:
        """What the module sent, without the messages' ids; only the messages that `do` so, if named."""
        messages: list[Json] = self.page.evaluate("window.model.sent")
        wanted = [message for message in messages if do in (None, message["do"])]
        return [{name: value for name, value in message.items() if name != "id"} for message in wanted]

    def ids(self) -> list[int]:
        ids: list[int] = self.page.evaluate("window.model.sent.map((message) => message.id)")
        return ids

    def heard(self) -> set[str]:
        """The events of views that reached the page, where the front end's shortcuts listen."""
        return set(self.page.evaluate("window.heard.splice(0)"))

    def num_listeners(self) -> int:
        """On the window, the document, its root and body, and the model."""
        session = self.page.context.new_cdp_session(self.page)
        total: int = self.page.evaluate("window.model.handlers.length")
        for target in ("window", "document", "document.documentElement", "document.body"):
            found = session.send("Runtime.evaluate", {"expression": target})["result"]["objectId"]
            total += len(session.send("DOMDebugger.getEventListeners", {"objectId": found})["listeners"])
        session.detach()
        return total

    def answer(self, route: Route) -> None:
        """Answer a request of the page's; what the page does not consist of is a problem."""
        path = route.request.url.removeprefix(URL.rstrip("/"))
        if path == "/base/nbllm/stop":
            self.stops.append(route.request)
            if self.stop_status:
                route.fulfill(status=self.stop_status)
            else:
                route.abort()
        elif path in ("/chat.js", "/chat.css"):
            route.fulfill(path=STATIC / path[1:])
        elif path in ("/", "/fake.js"):
            route.fulfill(
                body=_PAGE if path == "/" else _FAKE,
                content_type="text/html" if path == "/" else "text/javascript",
            )
        elif path == "/favicon.ico":
            route.fulfill(status=404)
        else:
            self.problems.append(f"asked for {route.request.url}")
            route.abort()


def _opened(browser: Browser, **options: Any) -> ChatPage:
    context = browser.new_context(viewport={"width": 900, "height": 900}, **options)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.add_cookies([{"name": "_xsrf", "value": "xsrf-of-the-page", "url": URL}])
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    chat = ChatPage(page)
    page.on("pageerror", lambda error: chat.problems.append(str(error)))
    page.on("console", lambda said: chat.problems.append(said.text) if said.type == "error" else None)
    page.route("**/*", chat.answer)
    page.goto(URL)
    return chat


@contextmanager
def chat_page(chromium_path: str, **options: Any) -> Iterator[ChatPage]:
    """A browser with such a page; `options` are those of Playwright's `new_context`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=["--no-sandbox"])
        try:
            yield _opened(browser, **options)
        finally:
            browser.close()
