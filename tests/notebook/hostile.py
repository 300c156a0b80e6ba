"""A notebook whose model, variables, cells and names attack the page that shows them.

The test builds it; its first cell runs `begin` in the kernel, so that what the model says is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbllm
from nbllm.core import Chunk, GenerateRequest, Request
from nbllm.errors import ModelLoadError, ModelNotFoundError
from nbllm.session.model import Model
from nbllm.testing import ScriptedEngine
from nbllm.testing.vocabulary import TOY_MODEL
from tests.markup.attacks import ATTACKS

if TYPE_CHECKING:
    from nbllm.core.presets import Preset
    from nbllm.engine.interface import OnChunk
    from nbllm.frames.compare.grid import Grid
    from nbllm.testing.script import Piece, ScriptedTicket

IMG = "<img src=x onerror=alert(1)>"
FAR = "https://attacker.invalid"
HREF = r"\href{javascript:alert(1)}{x}"
NAME = f"{IMG}|`*a*`${HREF}$[y](javascript:alert(1)) \\({HREF}\\)"
BROKEN = f"broken{IMG}"

ELEMENTS = {
    "toggle": "<details open ontoggle=alert(1)><summary>a</summary>b</details>",
    "focus": "<input autofocus onfocus=alert(1)>",
    "animation": "<style>@keyframes x{}</style><b style='animation:x 1s' onanimationstart=alert(1)>b</b>",
    "svg": f"<svg onload=alert(1)><image href={FAR}/svg.png /><use href={FAR}/use.svg#a /></svg>",
    "svg_animate": '<svg><a><animate attributeName=href values="javascript:alert(1)" /><text>x</text></a></svg>',
    "mathml": '<math><maction actiontype="statusline" href="javascript:alert(1)">x</maction></math>',
    "mutation": '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(1)&gt;">',
    "mutation_in_noscript": '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
    "raw_text": f"<textarea>{IMG}</textarea> <title>a</title> <xmp>b</xmp> <plaintext>c",
    "css": f"<style>@import '{FAR}/a.css'; body {{background: url({FAR}/b.png)}}</style>",
    "css_font": f"<style>@font-face {{font-family: a; src: url({FAR}/font)}} * {{font-family: a}}</style>",
    "style": f'<p style="background: url({FAR}/c.png); position: fixed; inset: 0">x</p>',
    "links": f"<link rel=stylesheet href={FAR}/d.css><link rel=prefetch href={FAR}/e><link rel=preconnect href={FAR}>",
    "meta": f'<meta http-equiv="refresh" content="0; url={FAR}/f"><base href={FAR}/>',
    "frames": f'<iframe src={FAR}/g></iframe><iframe srcdoc="&lt;script&gt;parent.alert(1)&lt;/script&gt;"></iframe>',
    "objects": f"<object data={FAR}/h></object><embed src={FAR}/i><applet code={FAR}/j></applet>",
    "form": f'<form action={FAR}/k><button formaction="javascript:alert(1)">Run</button><input type=image src={FAR}/l>',
    "media": f"<video src={FAR}/m poster={FAR}/n></video><audio src={FAR}/o autoplay></audio>",
    "srcset": f"<picture><source srcset={FAR}/p><img srcset='{FAR}/q 2x'></picture>",
    "ping": f"<a href=https://good.example ping={FAR}/r>x</a>",
    "anchor": "<a href=javascript:alert(1)>x</a> <a href='JAVASCRIPT&colon;alert(1)'>x</a>",
    "background": f"<table background={FAR}/s><tr><td background={FAR}/t>x</table>",
    "command": '<a data-commandlinker-command="filebrowser:delete" data-commandlinker-args="{}" href="#">x</a>',
    "slash": "<img/src=x/onerror=alert(1)> <IMG\nSRC=x\nONERROR=alert(1)> <img src=x onerror=alert(1)//",
    "unclosed": f'<a title="{IMG}\n\n{IMG}',
    "empty_comments": f"<!--> {IMG} --> <!---> {IMG} <!- {IMG} </ {IMG}>",
    "break": "| a |\n|---|\n| b<br onclick=alert(1)>c<br/ onload=alert(1)>d |",
}

MARKDOWN = {
    "image_in_table": f"| ![a]({FAR}/t1.png) |\n|---|\n| ![b][c] |\n\n[c]: {FAR}/t2.png",
    "image_in_list": f"- ![a]({FAR}/l1.png)\n- [ ] ![a](<{FAR}/l2.png>)\n  > ![a]({FAR}/l3.png 'x')",
    "image_in_heading": f"# ![a]({FAR}/h1.png)\n\n![a]({FAR}/h2.png)\n---",
    "image_in_link": f"[![a]({FAR}/i1.png)](javascript:alert(1))",
    "image_in_emphasis": f"**![a]({FAR}/e1.png)** ~~![a]({FAR}/e2.png)~~ \\`![a]({FAR}/e3.png)\\`",
    "image_collapsed": f"![a][] ![a]\n\n[a]: {FAR}/r1.png",
    "image_from_nowhere": "![a](//attacker.invalid/n.png) ![b](data:image/svg+xml,<svg onload=alert(1)>) ![c](x.png)",
    "image_over_lines": f"![a\nb](\n{FAR}/m.png\n)",
    "links": "[a](<javascript:alert(1)> 'b') [c](vbscript:x) [d](jAvAsCrIpT&#x3A;alert(1)) [e](\tjavascript:alert(1))",
    "autolinks": 'javascript:alert(1) <javascript&colon;alert(1)> www.attacker.invalid/"onmouseover=alert(1)',
    "references": "[a][b] [b][] [b]\n\n[b]: <javascript:alert(1)>\n[b]: data:text/html,<script>alert(1)</script>",
    "span_over_heading": f"a `b\n# c {IMG}` d",
    "span_over_quote": f"a `b\n> c {IMG}` d",
    "span_over_rows": f"| a |\n|---|\n| `b |\n| {IMG} ` |",
    "span_over_items": f"1. `a\n2. {IMG}\n3. b` ``c\n- {IMG}`` d",
    "rows_of_maths": f"| a | b |\n|---|---|\n| $x | {IMG} | y$ |",
    "maths_with_markup": rf"$\text{{{IMG}}}$ \({IMG}\) $$ {IMG} $$ \[ {IMG} \]",
    "maths_with_attributes": r'$\class{a" onmouseover="alert(1)}{x}$ $\cssId{"><img src=x>}{x}$ $x" onclick="alert(1)$',
    "maths_with_links": r"$$\href{javascript:alert(1)}{x} \url{javascript:alert(1)} \includegraphics{x}$$",
    "maths_that_defines": r"$\def\a{\href{javascript:alert(1)}{x}}\a$ $\require{html}\style{color:red}{x}$",
    "mermaid_click": '~~~mermaid\ngraph LR; a-->b; click a "javascript:alert(1)"\n~~~',
    "mermaid_with_attributes": f"``` mermaid {{x}}\ngraph LR; a[{IMG}]\n```",
    "mermaid_in_item": f"- ```mermaid\n  graph LR; a[{IMG}]\n  ```",
    "ansi": f"\x1b[31m{IMG}\x1b[0m \x1b]8;;javascript:alert(1)\x1b\\x\x1b]8;;\x1b\\ \x9b1m\x1b[2J",
    "separators": f"a\u2028```\u2028{IMG}\u2029\n\n```x\u2028```\n{IMG}\n```",
    "attributes": '# a {onclick="alert(1)"}\n\n[a](https://good.example){onclick="alert(1)"}\n\n{: onclick="alert(1)"}',
    "directive": f"```{{raw}} html\n{IMG}\n```\n\n:::{{raw}} html\n{IMG}\n:::\n\n.. raw:: html\n\n   {IMG}",
    "footnote": f"a[^1] ^[{IMG}]\n\n[^1]: {IMG}\n    ![b]({FAR}/fn.png)",
    "jinja": "{{ cell.source }} {% raw %} <%= 1 %> ${window.alert(1)}",
    "fence_with_a_fence": f"````\n```\n{IMG}\n````\n{IMG}\n```\n{IMG}",
}

CORPUS = (
    ATTACKS
    | {f"element {name}": text for name, text in ELEMENTS.items()}
    | {f"markdown {n}": t for n, t in MARKDOWN.items()}
)

CODE = {
    "html": f"{IMG}\n<script>alert(1)</script> &lt;b&gt; &amp;amp;",
    "dollars": 'echo "$HOME" $$ `x` \\[ y \\] \\begin{a} @@0@@ $x$',
    "markdown": f"# no heading\n\n- [x](javascript:alert(1))\n![y]({FAR}/y.png)\n| a |\n|---|\n~~~\n<b>",
    "python": 'if a < b and c > d:\n\n    print("&lt;", f"{x!r:>10}")  # a\\*b\\_c',
}

PAGES = {
    "images": f'<img src={FAR}/1.png onerror=alert(1)><img src="x" onerror="parent.alert(1)"><svg onload=alert(1)>',
    "scripts": f"<!doctype html><html><head><script>alert(1)</script><script src={FAR}/2.js></script></head><body>a",
    "css": f"<style>@import '{FAR}/3.css'; body {{background: url({FAR}/4.png)}}</style>b",
    "links": ELEMENTS["links"] + f"<LINK\trel=dns-prefetch href={FAR}><link/rel=preconnect href={FAR}:81>",
    "refresh": ELEMENTS["meta"] + '<meta http-equiv=Content-Security-Policy content="default-src *">',
    "frames": ELEMENTS["frames"] + ELEMENTS["objects"] + ELEMENTS["media"] + ELEMENTS["srcset"],
    "form": f"<form id=f action={FAR}/5 target=_top><input autofocus onfocus=f.submit()></form>",
    "way_out": f"\"></iframe>{IMG}<!-- '></iframe>{IMG} &quot;&gt;{IMG} </srcdoc>",
    "fence": f"```html\n<p onclick=alert(1)>c</p>{IMG}\n```\n{IMG}",
    "early": f"<frameset onload=alert(1)><frame src={FAR}/6></frameset>",
}

JSON = {
    "value": f'{{"{IMG}": ["</code></pre>{IMG}", "$x$", "```"]}}',
    "separators": '{"a": "\\u2028```\\u2028<img src=x onerror=alert(1)>\\u0085```\\n"}',
    "surrogate": '{"a": "\\ud800 <img src=x onerror=alert(1)>"}',
    "broken": f'{{"a": {IMG}\n```\n{IMG}',
    "fenced": f'```json\n["{IMG}"]\n```\n{IMG}',
}

LISTINGS = {
    "fenced": f"a\n```html\n{IMG}\n```\n{IMG}",
    "bare": f"{IMG}\n```",
    "mermaid": f"```mermaid\ngraph LR; a[{IMG}]\n```",
}

LINES = {
    "markup": f"{IMG} **a** [b](javascript:alert(1)) ${HREF}$",
    "ansi": MARKDOWN["ansi"],
    "code": f"```\n{IMG}\n```",
}

ANSWERS = {"markdown": CORPUS, "html": PAGES, "json": JSON, "code": LISTINGS, "text": LINES, "reasoning": CORPUS}
THOUGHTS = (
    "plain",
    "details",
    "unclosed_fence",
    "in_table_cells",
    "indented",
    "comment",
    "mermaid",
    "element unclosed",
)
VARIABLES = (
    "in_table_cells",
    "markdown mermaid_click",
    "markdown ansi",
    "maths_in_address_attribute",
    "unclosed_fence",
)


def _all_code() -> str:
    """Every listing in every kind of block, an attack before each."""
    blocks = [f"{IMG}\n\n{block}" for code in CODE.values() for block in _blocks(code)]
    return "\n\n".join([*blocks, "end"])


def _blocks(code: str) -> Iterator[str]:
    lines = code.split("\n")
    mark = "~~~~" if "```" in code else "````"
    yield f"{mark}html\n{code}\n{mark}"
    yield "\n".join(["- a", f"  {mark}", *(f"  {line}" if line else "" for line in lines), f"  {mark}", "- `b`"])
    yield "\n".join([f"> {mark}python", *(f"> {line}" for line in lines), f"> {mark}", "> c"])
    yield "\n".join(["d", "", *(f"    {line}" if line else "" for line in lines), "", "e"])


ANSWERS["markdown"] = CORPUS | {
    "all code": _all_code(),
    "benign": "# Title\n\n| a | b |\n|---|---|\n| `x < 1` | $x^2$ |\n\n**end**",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """A code cell, and what its output has to hold.

    Attributes:
        texts: parts of the output's visible text.
        listings: the text of each `pre` of the output, in order; None where that is not compared.
        num_frames: sealed frames.
        fails: it ends in an error.
    """

    source: str
    texts: tuple[str, ...] = ()
    listings: tuple[str, ...] | None = None
    num_frames: int = 0
    fails: bool = False


def cells() -> list[Cell]:
    """The cells in the order in which they run."""
    return [
        Cell("from tests.notebook import hostile\nhostile.begin(get_ipython())"),
        *_names(),
        *_answers(),
        *_formats(),
        *_questions(),
        *_comparisons(),
        *_errors(),
    ]


def _answers() -> Iterator[Cell]:
    names = list(CORPUS)
    for start in range(0, len(names), 20):
        group = names[start : start + 20]
        yield Cell(f"hostile.say(get_ipython(), {group!r})", ("tokens in",) * len(group))
    for name in THOUGHTS:
        yield Cell(f"%%chat --no-history\nsay reasoning {name}", ("Thoughts", "tokens in"))
    yield Cell(
        "%%chat --no-history\nsay markdown all code", ("end",), tuple(c for c in CODE.values() for _ in range(4))
    )
    yield Cell("r = %chat --no-history say markdown in_table_cells\nr", ("onerror",))
    yield Cell("display([r], {1: r}); print(repr(r))", ("onerror",))


def _formats() -> Iterator[Cell]:
    for name in PAGES:
        yield Cell(f"%%chat --no-history --format html\nsay html {name}", num_frames=1)
    for name in JSON:
        yield Cell(f"%%chat --no-history --format json\nsay json {name}", ("onerror", "tokens in"))
    for name, code in (("fenced", IMG), ("bare", LISTINGS["bare"]), ("mermaid", f"graph LR; a[{IMG}]")):
        yield Cell(f"%%chat --no-history --format code\nsay code {name}", ("tokens in",), (code,))
    for name in LINES:
        yield Cell(f"%%chat --no-history --format text\nsay text {name}", (IMG, "tokens in"))


def _questions() -> Iterator[Cell]:
    for name in VARIABLES:
        yield Cell(f"x = hostile.CORPUS[{name!r}]\nx")
        yield Cell("%%chat --new -s 'answer {x}'\n{x}", ("tokens in",))
        yield Cell("%llm show", ("system: answer", "tokens in all", "onerror" if "onerror" in CORPUS[name] else ""))
        yield Cell("%llm history", ("current",))
    yield Cell(
        f"%%chat --new\n{CORPUS['in_table_cells']}\n\n{CORPUS['html_in_info']}\n{ELEMENTS['mutation']}", ("tokens in",)
    )
    yield Cell(f"%%chat -c '{IMG}`|${HREF}$' --usage\nsay markdown plain", ("onerror",))
    yield Cell("%llm history --all", ("onerror", "current"))
    yield Cell("%llm history", (HREF, "current"))


def _comparisons() -> Iterator[Cell]:
    beginning = NAME.partition("$")[0]  # a header shows no more of so long a name
    for render in ("markdown", "text"):
        yield Cell(f"hostile.grid(render={render!r})", (beginning, f"![a]({FAR}/i1.png)", "end"))
    differ = "cols='input', rows='model', models=(hostile.NAME, 'other')"
    yield Cell(f"hostile.grid(12, {differ}, diff=True)", (beginning, IMG))
    yield Cell("%%compare evil --no-cache --diff --repeat 2\nsay markdown in_table_cells\n---\nfail", ("onerror", IMG))


def _names() -> Iterator[Cell]:
    yield Cell("%%chat --usage\nsay markdown benign", (NAME, "Title", "ended: stop"))
    yield Cell("%%chat --no-history -m other --usage\nsay markdown plain", ("ended: stop",))
    yield Cell("%llm status", (f"summary of {NAME}",))
    yield Cell(f"%llm load '{NAME}'", (f"summary of {NAME}",))
    yield Cell("%llm templates", (IMG,))
    yield Cell("%llm models", (IMG,))


def _errors() -> Iterator[Cell]:
    yield Cell(f"%%chat -m '{IMG}'\nhello", (f"no model {IMG}",), fails=True)
    yield Cell(f"%%chat -m '{BROKEN}'\nhello", (f"cannot load {BROKEN}",), fails=True)
    yield Cell(f"%%chat -c '{IMG}{IMG}' -o {IMG.split()[0]} 1\nhello", ("<img",), fails=True)
    yield Cell(f"%%chat --temperature '{IMG}'\nhello", (IMG,), fails=True)
    yield Cell(f"%chat --format '{IMG}'", (IMG,), fails=True)
    yield Cell(f"%llm '{IMG}'", (IMG,), fails=True)
    yield Cell(f"%llm open '{IMG}'", ("onerror",), fails=True)
    yield Cell(f"%llm history '{IMG}'", ("onerror",), fails=True)
    yield Cell(
        "class Bad:\n    def __repr__(self): raise ValueError('\\x1b]8;;javascript:alert(1)\\x07' + hostile.IMG)"
    )
    yield Cell("bad = Bad()\nget_ipython().run_cell_magic('chat', '', '{bad}')", ("onerror",), fails=True)
    yield Cell("%%chat --no-history\nfail", (IMG,), fails=True)


# ---- in the kernel


class HostileEngine(ScriptedEngine):
    """Says what the question `say KIND NAME` asks for, in two pieces."""

    def submit(self, request: Request, on_chunk: OnChunk) -> ScriptedTicket:
        assert isinstance(request, GenerateRequest)
        question = (request.messages or ())[-1].content
        self.enqueue(_pieces(question))
        return super().submit(request, on_chunk)


def _pieces(question: str) -> list[Piece]:
    verb, _, rest = question.partition(" ")
    if verb == "fail":
        return [f"so far {IMG}", ModelLoadError(f"failed at {IMG}")]
    if verb != "say":
        return [f"fine {IMG}"]
    kind, _, name = rest.partition(" ")
    text = ANSWERS[kind][name]
    middle = len(text) // 2
    parts = (text[:middle], text[middle:])
    if kind == "reasoning":
        return [*(Chunk(reasoning=part) for part in parts), "done"]
    return [Chunk(text=part) for part in parts]


class HostileModels:
    """Implements `notebook.models.Models`; the names of its models attack."""

    def __init__(self) -> None:
        self._models: dict[str, Model] = {}

    def loaded(self, name: str | None) -> Model | None:
        self.path(name)
        return self._models.get(name or self.default())

    def load(self, name: str | None, **options: Any) -> Model:
        self.path(name)
        name = name or self.default()
        if name == BROKEN:
            raise ModelLoadError(f"cannot load {name}")
        engine = HostileEngine(replace(TOY_MODEL, name=name))
        engine.info = replace(engine.info, summary=f"summary of {name}", template_note=f"a note on {name}")
        self._models[name] = Model(engine)
        return self._models[name]

    def all_loaded(self) -> list[Model]:
        return list(self._models.values())

    def path(self, name: str | None) -> str:
        if name not in (None, NAME, BROKEN, "other"):
            raise ModelNotFoundError(f"no model {name}")
        return __file__

    def preset(self, name: str | None) -> Preset | None:
        return None

    def default(self) -> str:
        return NAME


def begin(shell: Any) -> None:
    """Register the magics with a model that attacks, and show every piece of an answer."""
    from nbllm.notebook import display
    from nbllm.notebook.extension import load_ipython_extension

    display.MIN_INTERVAL_S = 0
    load_ipython_extension(shell, HostileModels())
    shell.user_ns["evil"] = Model(HostileEngine(replace(TOY_MODEL, name=NAME)))


def say(shell: Any, names: list[str]) -> None:
    """Answer with each of these attacks, as so many cells would."""
    for name in names:
        shell.run_cell_magic("chat", "--no-history", f"say markdown {name}")


def grid(max_prompts: int | None = None, models: tuple[str, ...] = (NAME,), **options: Any) -> Grid:
    """All attacks as answers of models, one of whose names attacks."""
    prompts = [f"say markdown {name}" for name in list(CORPUS)[:max_prompts]]
    hostile = {name: Model(HostileEngine(replace(TOY_MODEL, name=name))) for name in models}
    res = nbllm.compare(prompts, hostile, cache=False, progress=False)
    made: Grid = res.llm.grid(max_rows=None, **options)
    return made


def furnish(folder: Path) -> None:
    """Files that attack: a template, and the name of a model's file."""
    for name in ("templates", "models"):
        (folder / name).mkdir()
    (folder / "templates" / "a.md").write_text(f"---\nname: a\ndescription: '{IMG}'\n---\n{IMG}\n")
    (folder / "models" / f"{IMG}.gguf").write_bytes(b"GGUF")


def variables(folder: Path) -> dict[str, str]:
    """For the process in which the notebook runs."""
    return {"NBLLM_MODELS_DIR": str(folder / "models")}
