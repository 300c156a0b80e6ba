"""From a file on disk to a running engine: checks, a memory plan, llama.cpp."""

from __future__ import annotations

import contextlib
import importlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from nbllm.config import Config
from nbllm.core import ModelInfo
from nbllm.engine.adapters import AdapterCheck
from nbllm.engine.aside import aside
from nbllm.engine.machine import available_memory, usable_cores
from nbllm.engine.plan import STEP_TOKENS, Plan, plan
from nbllm.errors import ModelLoadError, ParameterError
from nbllm.store.gguf import check_complete

if TYPE_CHECKING:
    from nbllm.engine.local import LocalEngine
    from nbllm.llama.backend import LlamaBackend

_REST = ("nbllm.engine.driver", "nbllm.engine.local", "jinja2.ext", "numpy", "llguidance")
"""What the engine needs, at once or for a later request, and llama.cpp's reading of the file does not.

Imported in a thread, which gets no signals: an interrupted first import of numpy cannot be repeated in a process.
"""
_MOST_THREADS = 512
_MOST_LAYERS = 10_000
_LEAST_BATCH, _MOST_BATCH = 64, 4096  # the reproducible lane needs a step of 40
_logger = logging.getLogger("nbllm.engine")


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
    flash_attention: bool | None = None,
    max_batch: int = STEP_TOKENS,
) -> LocalEngine:
    """Load a GGUF into this process.

    Raises:
        ModelLoadError: the file is damaged, truncated or refused by llama.cpp.
        InsufficientMemoryError: what was asked for does not fit.
        ParameterError: an option is out of range.
    """
    _check_options(threads, gpu_layers, use_mmap=use_mmap, swa_full=swa_full)
    _check_flash_attention(flash_attention, kv_type)
    _check_batch(max_batch)
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
        kv_type="f16" if flash_attention is False else kv_type,  # a quantized one needs flash attention
        max_batch=max_batch,
    )
    if config.prefix_store_bytes is not None:
        chosen = replace(chosen, store_bytes=config.prefix_store_bytes)

    from nbllm.llama.backend import LlamaBackend
    from nbllm.llama.library import library

    threads = threads or config.threads
    library()  # Python's own work, which would only share the GIL with what is done aside
    with aside(_import_the_rest):
        backend = LlamaBackend(
            model.path,
            gpu_layers=gpu_layers,
            use_mmap=use_mmap,
            threads=min(usable_cores(), threads or usable_cores()),
            swa_full=swa_full,
            flash_attention=flash_attention,
            max_batch=max_batch,
        )
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(backend.close)
        engine = _engine(backend, model, chosen, config, _offloaded(backend, gpu_layers), threads)
        cleanup.pop_all()
    _logger.info("%s", engine.info.summary)
    return engine


def _import_the_rest() -> None:
    for name in _REST:
        importlib.import_module(name)


def _engine(
    backend: LlamaBackend, model: ModelInfo, chosen: Plan, config: Config, layers: int, threads: int | None
) -> LocalEngine:
    from nbllm.engine.driver import shared_driver
    from nbllm.engine.local import LocalEngine

    return LocalEngine(
        backend,
        model,
        chosen,
        shared_driver(config.cores_file),
        gpu_layers=layers,
        flash_attention=backend.unusual_flash_attention(chosen.kv_type),
        threads=threads,
        check_adapter=AdapterCheck(model.path),
        memory_fraction=config.memory_fraction,
    )


def _check_options(threads: object, gpu_layers: object, **switches: object) -> None:
    if threads is not None and not _is_count(threads, 1, _MOST_THREADS):
        raise ParameterError("threads", f"must be a whole number from 1 to {_MOST_THREADS}, not {threads!r}")
    if not _is_count(gpu_layers, -1, _MOST_LAYERS):
        raise ParameterError("gpu_layers", f"must be -1 (all) or a whole number of layers, not {gpu_layers!r}")
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise ParameterError(name, f"must be True or False, not {value!r}")


def _check_flash_attention(asked: object, kv_type: str | None) -> None:
    if asked not in (None, True, False):
        raise ParameterError("flash_attention", f"must be True, False or None, not {asked!r}")
    if asked is False and kv_type not in (None, "f16"):
        raise ParameterError("flash_attention", f"a {kv_type} KV needs it; leave it out, or take kv_type='f16'")


def _check_batch(tokens: object) -> None:
    if not _is_count(tokens, _LEAST_BATCH, _MOST_BATCH):
        allowed = f"must be a whole number from {_LEAST_BATCH} to {_MOST_BATCH}"
        raise ParameterError("max_batch", f"{allowed}, not {tokens!r}")


def _is_count(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _offloaded(backend: LlamaBackend, asked: int) -> int:
    """Layers that are on a GPU. A build without one has none, which is said if some were asked for."""
    if not backend.library.has_gpu:
        if asked > 0:
            _logger.warning("gpu_layers=%d: this llama.cpp was built without GPU support, so all layers stay", asked)
        return 0
    return backend.num_layers if asked < 0 else min(asked, backend.num_layers)
