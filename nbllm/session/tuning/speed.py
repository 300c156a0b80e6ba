"""How fast a model is, as its engine is used: a long prompt, one answer, and eight answers side by side."""

from __future__ import annotations

import queue
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbllm.core import Chunk, GenerateRequest, SamplingParams
from nbllm.engine.interface import Engine, next_chunk
from nbllm.errors import EngineError
from nbllm.session.tuning.measurement import Speeds, medians
from nbllm.session.tuning.sample import TEXT

if TYPE_CHECKING:
    from nbllm.runner.client import RemoteEngine

_PROMPT, _SHORT_PROMPT, _NEW, _WIDTH = 512, 32, 48, 8
_REPEATS = 3
_ENOUGH_S = 20.0
"""No more repeats after that: a large model is slow enough for one to be exact."""
_GRACE_S = 0.5
_NO_HASH = "0" * 64  # or the runner would hash the file while it is measured
_END_KEYS = tuple(f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom"))
_END_TEXTS = ("</s>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|return|>")


def in_a_process(path: Path, name: str, options: dict[str, Any], timeout_s: float) -> tuple[Speeds, bool]:
    """Load the model into a new process and measure it there; whether it is on a GPU is told too.

    Raises:
        NbllmError: it could not be loaded, or the process ended; the message says how.
    """
    from nbllm.runner import spawn
    from nbllm.runner.spec import LoadOptions, RunnerSpec

    with tempfile.TemporaryDirectory(prefix="nbllm-") as folder:  # of its own: nobody else is to find the engine
        spec = RunnerSpec(path=path, name=name, folder=Path(folder), options=LoadOptions(**options), file_hash=_NO_HASH)
        runner = spawn.start(spec, timeout_s=timeout_s)
        try:
            return _speeds(runner.engine, _ends(path, runner.engine)), runner.engine.info.gpu_layers > 0
        finally:
            runner.stop(_GRACE_S)


def _speeds(engine: Engine, ends: Sequence[int]) -> Speeds:
    tokens = engine.tokenize(TEXT * 2)[:_PROMPT]
    shorts = [tokens[at : at + _SHORT_PROMPT] for at in range(0, _WIDTH * 16, 16)]
    _answered(engine, [shorts[0]], _NEW, ends)  # the engine learns how long its steps may be
    found: list[Speeds] = []
    started = time.monotonic()
    while len(found) < _REPEATS and (not found or time.monotonic() - started < _ENOUGH_S):
        prompt, alone, beside = (
            _answered(engine, [tokens], 1, ends),
            _answered(engine, shorts[:1], _NEW, ends),
            _answered(engine, shorts, _NEW, ends),
        )
        found.append(Speeds(_prefill(prompt), _decode(alone), _decode(beside)))
    return medians(found)


def _prefill(answers: Sequence[Chunk]) -> float:
    return sum(
        chunk.usage.prompt_tokens / chunk.timings.prefill_s
        for chunk in answers
        if chunk.usage is not None and chunk.timings is not None and chunk.timings.prefill_s > 0
    )


def _decode(answers: Sequence[Chunk]) -> float:
    """Of all together: they run over the same seconds."""
    return sum(
        chunk.timings.tokens_per_s(chunk.usage.completion_tokens)
        for chunk in answers
        if chunk.usage is not None and chunk.timings is not None
    )


def _answered(engine: Engine, prompts: Sequence[Sequence[int]], num_new: int, ends: Sequence[int]) -> list[Chunk]:
    """The last chunk of each prompt's answer. The requests are those of `chat_many`, but nothing is reused."""
    sampling = SamplingParams(temperature=0, max_tokens=num_new, logit_bias=dict.fromkeys(ends, -100.0))
    inbox: queue.SimpleQueue[Chunk] = queue.SimpleQueue()
    for prompt in prompts:
        request = GenerateRequest(tokens=tuple(prompt), sampling=sampling, priority="batch", cache_prompt=False)
        engine.submit(request, inbox.put)
    last: list[Chunk] = []
    while len(last) < len(prompts):
        chunk = next_chunk(inbox)
        if chunk.error is not None:
            raise EngineError(str(chunk.error)) from chunk.error
        if chunk.finish_reason is not None:
            last.append(chunk)
    return last


def _ends(path: Path, engine: RemoteEngine) -> list[int]:
    """The tokens that end an answer: they are banned, so that every answer has its full length."""
    from nbllm.store.gguf import read_metadata

    values = read_metadata(path).values
    ids = {value for key in _END_KEYS if isinstance(value := values.get(key), int)}
    texts = (engine.tokenize(text, parse_special=True) for text in _END_TEXTS)
    return sorted(ids | {found[0] for found in texts if len(found) == 1})
