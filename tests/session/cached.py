"""An answer with something in each of its fields, and keys to keep it under."""

from __future__ import annotations

import math

from nbllm.core import Timings, TokenLogprob, Usage
from nbllm.session.response import Response

KEY = "0123456789abcdef" * 4
OTHER_KEY = KEY[::-1]
ANSWER = Response(
    text='{"a": 1}',
    reasoning="hm\ud800",
    finish_reason="stop",
    usage=Usage(5, 3, 2, 1),
    timings=Timings(0.1, 1 / 3, 0.2, 1e-9),
    logprobs=(TokenLogprob(7, b"\xff\x00", -1.5, ((7, b"\xff", -1.5), (8, b"", -math.inf))),),
    tokens=(7, 8, 9),
    seed=2**32 - 2,
    model="smollm2",
)
