"""The llama.cpp shared library: found once, checked, and bound in two ways.

`Library.api` is llama-cpp-python's ctypes binding (`bindings.py`). Each call through it gives up the GIL and has to
wait for it again, up to a switch interval (5 ms by default) while the kernel's main thread runs Python. So short calls
that happen for every token go through `Library.quick`, the same functions bound with `ctypes.PyDLL`, which keeps the
GIL; only calls that compute for milliseconds (decode, load, state copies) go through `api`.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

from nbllm.errors import EngineClosedError, ModelLoadError
from nbllm.llama import log
from nbllm.llama.amx import extra_buffers_are_safe
from nbllm.llama.bindings import import_bindings

PINNED = "0.3.36"
_QUICK = (
    "llama_get_logits_ith",
    "llama_get_embeddings_ith",
    "llama_sampler_accept",
    "llama_sampler_apply",
    "llama_sampler_sample",
    "llama_token_to_piece",
    "llama_vocab_is_eog",
    "llama_memory_seq_rm",
    "llama_memory_seq_cp",
    "llama_memory_seq_pos_min",
    "llama_memory_seq_pos_max",
    "llama_set_embeddings",
    "llama_set_n_threads",
)
_NEEDED = (
    *_QUICK,
    "llama_adapter_lora_free",
    "llama_adapter_lora_init",
    "llama_decode",
    "llama_init_from_model",
    "llama_log_set",
    "llama_model_load_from_file",
    "llama_sampler_init_penalties",
    "llama_set_abort_callback",
    "llama_set_adapters_lora",
    "llama_state_seq_get_data",
    "llama_state_seq_set_data",
    "llama_tokenize",
    "llama_vocab_get_attr",
    "llama_vocab_n_tokens",
)
_lock = threading.Lock()


class Library:
    """The bound library of this process; get it through `library()`."""

    def __init__(self) -> None:
        self.api: Any = _import_bindings()
        self.quick = _Quick(self.api)
        self.pid = os.getpid()
        log.route(self.api)
        self.api.llama_backend_init()

    @property
    def build(self) -> str:
        """What the build can do, as llama.cpp prints it: instruction sets, GPU backends."""
        text: bytes = self.api.llama_print_system_info()
        return text.decode("utf-8", errors="replace").strip()

    @functools.cached_property
    def extra_buffers(self) -> bool:
        """Whether weights may be repacked for this processor's matrix instructions."""
        return extra_buffers_are_safe(self.build, Path(_shared_object(self.api)._name).parent)

    @property
    def has_gpu(self) -> bool:
        return bool(self.api.llama_supports_gpu_offload())

    def address(self, name: str) -> int | None:
        """Where a function is, for another library that calls it."""
        return ctypes.cast(getattr(_shared_object(self.api), name), ctypes.c_void_p).value

    def check_process(self) -> None:
        """Raise in a forked child: OpenMP's threads do not survive a fork, and the next decode would hang."""
        if os.getpid() != self.pid:
            raise EngineClosedError(
                "this process was forked from one that uses llama.cpp, which cannot work here; "
                'start workers with multiprocessing.get_context("spawn")'
            )


class _Quick:
    """The per-token functions, bound so that they keep the GIL."""

    def __init__(self, api: Any) -> None:
        handle = ctypes.PyDLL(_shared_object(api)._name)
        for name in _QUICK:
            bound, known = getattr(handle, name), getattr(_shared_object(api), name)
            bound.argtypes, bound.restype = known.argtypes, known.restype
            setattr(self, name, bound)
        self.memcpy = (ctypes.PyDLL("msvcrt") if sys.platform == "win32" else ctypes.PyDLL(None)).memcpy
        self.memcpy.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
        self.memcpy.restype = ctypes.c_void_p

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)  # only for the type checker: what exists was set above


def _shared_object(api: Any) -> Any:
    return api._lib


def _import_bindings() -> ModuleType:
    try:
        api = import_bindings()
    except (ImportError, OSError, RuntimeError) as error:
        raise ModelLoadError(
            f"llama.cpp cannot be loaded ({error}); reinstall it: "
            f'pip install --force-reinstall "llama-cpp-python=={PINNED}"'
        ) from error
    missing = [name for name in _NEEDED if not hasattr(api, name)]
    if missing:
        raise ModelLoadError(
            f"this llama-cpp-python lacks {', '.join(missing)}; install the pinned one: "
            f'pip install "llama-cpp-python=={PINNED}"'
        )
    return api


@functools.cache
def _create() -> Library:
    return Library()


def library() -> Library:
    """The library, bound at the first call. Raises EngineClosedError in a forked child of a process that bound it."""
    with _lock:
        bound = _create()
    bound.check_process()
    return bound
