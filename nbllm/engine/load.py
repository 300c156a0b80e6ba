"""From a file on disk to a running engine: checks, a memory plan, llama.cpp."""

from __future__ import annotations

from dataclasses import replace

from nbllm.config import Config
from nbllm.core import ModelInfo
from nbllm.engine.driver import shared_driver
from nbllm.engine.local import LocalEngine
from nbllm.engine.machine import available_memory, usable_cores
from nbllm.engine.plan import plan
from nbllm.errors import ModelLoadError
from nbllm.store.gguf import check_complete


def load_engine(
    model: ModelInfo,
    config: Config,
    *,
    context_length: int | None = None,
    max_sequences: int = 8,
    kv_tokens: int | None = None,
    kv_type: str | None = None,
    gpu_layers: int = -1,
    threads: int | None = None,
    use_mmap: bool = True,
    swa_full: bool = True,
) -> LocalEngine:
    """Load a GGUF into this process.

    Raises:
        ModelLoadError: the file is damaged, truncated or refused by llama.cpp.
        InsufficientMemoryError: what was asked for does not fit.
        ParameterError: an option is out of range.
    """
    if model.problem:
        raise ModelLoadError(f"{model.path}: {model.problem}")
    check_complete(model.path)
    chosen = plan(
        model,
        free_bytes=available_memory(),
        fraction=config.memory_fraction,
        context_length=context_length,
        max_sequences=max_sequences,
        kv_tokens=kv_tokens,
        kv_type=kv_type,
    )
    if config.prefix_store_bytes is not None:
        chosen = replace(chosen, store_bytes=config.prefix_store_bytes)

    from nbllm.llama.backend import LlamaBackend

    cores = min(usable_cores(), threads or config.threads or usable_cores())
    backend = LlamaBackend(model.path, gpu_layers=gpu_layers, use_mmap=use_mmap, threads=cores, swa_full=swa_full)
    try:
        driver = shared_driver(threads or config.threads, config.cores_file)
        offloaded = min(backend.num_layers, gpu_layers if gpu_layers >= 0 else backend.num_layers)
        return LocalEngine(backend, model, chosen, driver, gpu_layers=offloaded if backend.library.has_gpu else 0)
    except BaseException:
        backend.close()
        raise
