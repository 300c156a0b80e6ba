"""Issue 3, bar 3: what an answer of 2,000 tokens costs the kernel to show, at 60 tokens a second; and %load_ext."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench import sides
from tests.notebook.kernel import started

_SHOW = """
import json, time
from nbllm.core import Chunk
from nbllm.notebook.display import LiveAnswer
from nbllm.session.response import Response

line = "A **bold** word, `code`, a [link](https://example.com) and *some* more text to read. "
words = ((line * 6 + "\\n\\n- an item\\n- another\\n\\n```python\\nx = 1\\n```\\n\\n") * 40).split(" ")[:2000]
now = 0.0
view = LiveAnswer(get_ipython().display_pub.publish, lambda: now)
started = time.process_time()
for word in words:
    now += 1 / 60
    view.add(Chunk(text=word + " "))
view.finish(Response(text=" ".join(words)), ["2,000 tokens"], {})
print(json.dumps({"show_s": time.process_time() - started}))
"""
_LOAD = """
import time
started = time.perf_counter()
%load_ext nbllm
print('{"load_ext_s": %f}' % (time.perf_counter() - started))
"""


def _in_kernel(code: str) -> dict[str, float]:
    with started() as kernel:
        ran = kernel.run(code)
    found: dict[str, float] = json.loads(ran.printed.splitlines()[-1])
    return found


if __name__ == "__main__":
    sides.main(
        __file__,
        {"show": lambda: _in_kernel(_SHOW), "load_ext": lambda: _in_kernel(_LOAD)},
        ratios={},
    )
