"""A loaded GGUF: its weights, vocabulary and metadata."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import weakref
from collections.abc import Sequence
from typing import Any

from nbllm.core import SamplingParams
from nbllm.errors import InvalidRequestError, ModelLoadError, ParameterError
from nbllm.llama import log
from nbllm.llama.library import Library, library
from nbllm.llama.owned import owned

_META_BUFFER = 4096
_QUOTED = 20
_SAMPLING_KEYS = {
    "temperature": ("general.sampling.temp", float),
    "top_k": ("general.sampling.top_k", int),
    "top_p": ("general.sampling.top_p", float),
    "min_p": ("general.sampling.min_p", float),
    "repeat_penalty": ("general.sampling.penalty_repeat", float),
    "repeat_last_n": ("general.sampling.penalty_last_n", int),
}


class LlamaModel:
    """Owns llama.cpp's model pointer. Tokenizing is safe on any thread; `close` frees the weights.

    Args:
        path: a GGUF file; the other parts of a split model are found beside it.
        gpu_layers: layers to offload when the build supports it, -1 for all.
        use_mmap: share the weights with other processes that hold the same file.

    Raises:
        ModelLoadError: llama.cpp refused the file; its own words are quoted.
    """

    def __init__(self, path: str, *, gpu_layers: int = -1, use_mmap: bool = True) -> None:
        self.library: Library = library()
        api = self.api
        params = api.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        params.use_extra_bufts = self.library.extra_buffers
        params.load_mode = api.LLAMA_LOAD_MODE_MMAP if use_mmap else api.LLAMA_LOAD_MODE_NONE
        self.pointer = pointer = _loaded(api, path, params)
        self._finalizer = weakref.finalize(self, _free, self.library, pointer)
        self.dependents: list[weakref.finalize[..., Any]] = []
        self.vocab = api.llama_model_get_vocab(pointer)
        self.vocabulary_size = int(api.llama_vocab_n_tokens(self.vocab))
        self.embedding_length = int(api.llama_model_n_embd(pointer))
        self.trained_context = int(api.llama_model_n_ctx_train(pointer))
        self.num_layers = int(api.llama_model_n_layer(pointer))
        self.sliding_window = int(api.llama_model_n_swa(pointer))
        self.pieces = Pieces(self)

    @property
    def api(self) -> Any:
        return self.library.api

    def close(self) -> None:
        """Free the weights, and before them what is left of contexts on them: an interrupt may have left one."""
        for free in self.dependents:
            free()
        self._finalizer()

    @functools.cached_property
    def impossible_logits(self) -> ctypes.Array[ctypes.c_float]:
        """A row in which every token is impossible, to copy from."""
        return (ctypes.c_float * self.vocabulary_size)(*([float("-inf")] * self.vocabulary_size))

    # ---- metadata

    def metadata(self, key: str) -> str | None:
        """One metadata value as text, None when the file has no such key."""
        size = _META_BUFFER
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = self.api.llama_model_meta_val_str(self.pointer, key.encode(), buffer, size)
            if length < 0:
                return None
            if length < size:
                return buffer.value.decode("utf-8", errors="replace")
            size = length + 1

    @property
    def chat_template(self) -> str | None:
        return self.metadata("tokenizer.chat_template")

    @property
    def can_generate(self) -> bool:
        """False for encoders, which have nothing to continue a text with."""
        return bool(self.api.llama_model_has_decoder(self.pointer)) and self.metadata(
            f"{self.metadata('general.architecture')}.attention.causal"
        ) not in ("false", "0")

    @property
    def pooling(self) -> str:
        """How token embeddings become one: "mean" unless the model says "cls" or "last"."""
        kind = self.metadata(f"{self.metadata('general.architecture')}.pooling_type")
        return {"2": "cls", "3": "last"}.get(kind or "", "mean")

    def recommended_sampling(self) -> SamplingParams:
        """What the file recommends; a recommendation that is no valid value is ignored."""
        found: dict[str, Any] = {}
        for name, (key, kind) in _SAMPLING_KEYS.items():
            text = self.metadata(key)
            if text is not None:
                with contextlib.suppress(ValueError, ParameterError):
                    SamplingParams(**{name: kind(float(text))})
                    found[name] = kind(float(text))
        return SamplingParams(**found)

    # ---- vocabulary

    def special(self, name: str) -> int | None:
        """The id of "bos", "eos", "eot", ..., None when the vocabulary has none."""
        token = int(getattr(self.api, f"llama_vocab_{name}")(self.vocab))
        return token if token >= 0 else None

    def special_text(self, name: str) -> str:
        """The text of a special token, "" when the vocabulary has none."""
        token = self.special(name)
        return "" if token is None else str(self.api.llama_vocab_get_text(self.vocab, token).decode("utf-8", "replace"))

    @property
    def adds_bos(self) -> bool:
        return bool(self.api.llama_vocab_get_add_bos(self.vocab))

    def is_end(self, token: int) -> bool:
        """Whether the token ends a turn or a text."""
        return bool(self.library.quick.llama_vocab_is_eog(self.vocab, token))

    def control_texts(self) -> tuple[str, ...]:
        """The texts that the tokenizer turns into control tokens when it is asked to parse them.

        User-defined tokens (`</think>` in some models) are not among them: they are ordinary text that has a token of
        its own, and the tokenizer takes them from any text.
        """
        api = self.api
        attribute = api.llama_vocab_get_attr  # not the quick one: this runs beside a load, which then waits for the GIL
        marked = api.LLAMA_TOKEN_ATTR_CONTROL | api.LLAMA_TOKEN_ATTR_UNKNOWN
        found = [
            api.llama_vocab_get_text(self.vocab, token).decode("utf-8", errors="replace")
            for token in range(self.vocabulary_size)
            if attribute(self.vocab, token) & marked
        ]
        return tuple(text for text in found if text.strip())

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Turn text into token ids.

        Raises:
            InvalidRequestError: the text holds a lone surrogate, which no encoding has.
        """
        data = utf8(text)
        size = len(data) + 8
        while True:
            ids = (ctypes.c_int32 * size)()
            count = int(self.api.llama_tokenize(self.vocab, data, len(data), ids, size, add_special, parse_special))
            if count >= 0:
                return ids[:count]
            size = -count

    def detokenize(self, tokens: Sequence[int]) -> bytes:
        """The bytes of ordinary tokens; control tokens have none."""
        return b"".join(self.pieces[token] for token in tokens)

    def check_ids(self, tokens: Sequence[int], param: str) -> None:
        """Raise ParameterError for an id outside of the vocabulary, which would crash a decode or be ignored."""
        for token in tokens:
            if not 0 <= token < self.vocabulary_size:
                raise ParameterError(
                    param, f"{token} is not a token of this model: its ids go from 0 to {self.vocabulary_size - 1}"
                )


class Pieces(dict[int, bytes]):
    """The bytes that each token stands for, asked for once; a control one for none, or its text if `special`."""

    def __init__(self, model: LlamaModel, *, special: bool = False) -> None:
        super().__init__()
        self._special = special
        self._call = model.library.quick.llama_token_to_piece
        self._vocab = model.vocab

    def __missing__(self, token: int) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = int(self._call(self._vocab, token, buffer, size, 0, self._special))
            if length >= 0:
                piece = self[token] = buffer.raw[:length]
                return piece
            size = -length


def utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        before = text[max(0, error.start - _QUOTED) : error.start].encode("utf-8", "replace").decode()
        raise InvalidRequestError(
            f"the text has a lone surrogate (U+{ord(text[error.start]):04X}) after {before!r}, which is not a "
            'character; clean it with text.encode("utf-8", "replace").decode()'
        ) from error


def _loaded(api: Any, path: str, params: Any) -> Any:
    """llama.cpp's pointer. A file that it refuses is tried again, to hear why."""
    encoded = path.encode("utf-8", errors="surrogateescape")
    with log.unheard():
        pointer = owned(api.llama_model_load_from_file, api.llama_model_free, encoded, params)
    if pointer:  # a NULL POINTER is falsy, but it is not None
        return pointer
    with log.captured() as errors:
        pointer = owned(api.llama_model_load_from_file, api.llama_model_free, encoded, params)
    if not pointer:
        raise ModelLoadError(f"{path} cannot be loaded: {_reason(errors)}")
    return pointer


def _reason(errors: Sequence[str]) -> str:
    """llama.cpp's first error line, without the name of its own function in front."""
    for line in errors:
        return line.split(": ", 1)[-1].strip()
    return "llama.cpp gave no reason"


def _free(bound: Library, pointer: Any) -> None:
    import os

    if os.getpid() == bound.pid:
        bound.api.llama_model_free(pointer)
