"""Issue 6, bar 1, as a person sees it: from Enter to the first painted token, beyond the engine's own first-token time.

JupyterLab in Chromium with the bundled model. The page notes when Enter goes down, when the first text of the answer is
in the feed, and when the frame that has it was painted; the engine's own time is the one under the answer, which is
exact to a hundredth of a second.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.notebook import front_ends
from tests.notebook.kernel import ROOT
from tests.notebook.widget.in_front_end import Chat, Front, Served, opened

_NUM_QUESTIONS = 12
_CELLS = {"chat": "import nbllm\nnbllm.ChatWidget(max_tokens=8, temperature=0)"}
_WATCH = """(root) => {
  window.paints = [];
  const area = root.querySelector(".nbllm-composer textarea");
  area.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    const paint = { entered: performance.now() };
    window.paints.push(paint);
    const look = () => {
      const live = root.querySelector("article.nbllm-live");
      const text = live?.querySelector(".nbllm-tail")?.textContent || live?.querySelector(".nbllm-body")?.textContent;
      if (!text || paint.shown) return;
      paint.shown = performance.now();
      watcher.disconnect();
      requestAnimationFrame(() => {
        const channel = new MessageChannel(); // its message comes after the frame was painted
        channel.port1.onmessage = () => { paint.painted = performance.now(); };
        channel.port2.postMessage(0);
      });
    };
    const watcher = new MutationObserver(look);
    watcher.observe(root, { childList: true, characterData: true, subtree: true });
  }, true);
}"""


def painted() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name, front_ends.attacker() as nobody:
        folder = Path(name)
        (folder / "work").mkdir()
        for variable in ("NBLLM_CHATS_DIR", "NBLLM_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
            os.environ[variable] = str(folder / variable)
        chromium = shutil.which("chromium")
        if chromium is None:
            raise SystemExit("no Chromium on the PATH: apt-get install chromium")
        variables = {"JUPYTER_CONFIG_PATH": str(ROOT / "jupyter-config")}
        with (
            front_ends.browser(chromium, nobody) as browser,
            front_ends.server(folder / "work", folder / "settings", variables) as url,
        ):
            served = Served(url, folder / "work")
            with opened(browser, served, served.write("chat.ipynb", _CELLS)) as lab:
                return _figures(lab)


def _figures(lab: Front) -> dict[str, Any]:
    chat = lab.chat("chat")
    chat.ask("Hello")
    chat.root.evaluate(_WATCH)
    over = [_over_engine_ms(chat, number) for number in range(_NUM_QUESTIONS)]
    return {
        "questions": len(over),
        "over_engine_ms_median (bar 150)": round(statistics.median(over), 1),
        "over_engine_ms_worst": round(max(over), 1),
    }


def _over_engine_ms(chat: Chat, number: int) -> float:
    answer = chat.ask(f"Name the number {number}.")
    paint = chat.page.evaluate("window.paints.at(-1)")
    told = re.search(r"first token after ([0-9.]+) s", answer.locator(".nbllm-foot").inner_text())
    assert told is not None, "the figures under the answer say nothing of its first token"
    return float(paint["painted"] - paint["entered"] - float(told[1]) * 1000)


if __name__ == "__main__":
    print(json.dumps(painted(), indent=2))
