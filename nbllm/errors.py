"""Every error that nbllm raises on purpose.

    NbllmError
    ├── InvalidRequestError (ValueError)   what was asked cannot be done; correct it and ask again
    │   ├── ParameterError                 an option is unknown, of a wrong type or out of range
    │   ├── ContextOverflowError           a prompt does not fit into the context
    │   ├── ConstraintError                a schema, regex, choice list or grammar is not supported
    │   ├── TemplateError                  a chat template failed, looped or grew too large
    │   └── UnsupportedError               this engine or model lacks the feature
    ├── ModelError                         a model is not there or cannot be used
    │   ├── ModelNotFoundError             no model of that name
    │   ├── ModelLoadError                 the file is not a usable GGUF
    │   ├── InsufficientMemoryError        the model or its context does not fit into memory
    │   └── EndpointError (EngineError)    another server is not there, or did not answer to the end
    └── EngineError                        the engine failed, not the request
        ├── EngineClosedError              used after close(), or in a forked child
        └── EngineDeadError                the engine cannot go on; load the model again

In a notebook an InvalidRequestError or a ModelError is one line that says what to type instead. Any other EngineError
shows its traceback, and so does everything when the environment variable NBLLM_DEBUG is set.
"""

from __future__ import annotations

import os
import traceback
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class NbllmError(Exception):
    """The root of nbllm's errors."""


class _OneLine(NbllmError):
    def _render_traceback_(self) -> list[str]:
        """IPython asks for this instead of a traceback; the user can correct the cause, so one line will do."""
        return traceback.format_exception(self) if _shows_all() else [f"{type(self).__name__}: {self}"]


class InvalidRequestError(_OneLine, ValueError):
    """What was asked cannot be done as it was asked."""


class ParameterError(InvalidRequestError):
    """An option is unknown, of a wrong type or out of range; `param` names it."""

    def __init__(self, param: str, problem: str) -> None:
        super().__init__(f"{param}: {problem}")
        self.param = param
        self.problem = problem

    def __reduce__(self) -> tuple[type[ParameterError], tuple[str, str]]:
        return type(self), (self.param, self.problem)


class ContextOverflowError(InvalidRequestError):
    """A prompt does not fit into the context; nothing was dropped to make it fit.

    Args:
        advice: what else would help, besides a shorter prompt and a longer context.
        trained_length: the longest context that the model has learnt to use; 0 is unknown.
    """

    def __init__(self, prompt_tokens: int, context_length: int, advice: str = "", trained_length: int = 0) -> None:
        super().__init__(
            f"the prompt has {prompt_tokens:,} tokens and the context holds {context_length:,}: shorten the prompt"
            + self._longer_context(_useful_length(prompt_tokens, context_length, trained_length), trained_length)
            + (advice and f"; {advice}")
        )
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length
        self.advice = advice
        self.trained_length = trained_length

    def __reduce__(self) -> tuple[type[ContextOverflowError], tuple[int, int, str, int]]:
        return type(self), (self.prompt_tokens, self.context_length, self.advice, self.trained_length)

    def with_advice(self, advice: str) -> ContextOverflowError:
        return type(self)(self.prompt_tokens, self.context_length, advice, self.trained_length)

    @staticmethod
    def _longer_context(length: int, trained_length: int) -> str:
        """What to say of a longer context.

        Args:
            length: that would do; 0 if none would.
        """
        return (
            f", or load the model with context_length={length}"
            if length
            else f" (the model was trained for {trained_length:,})"
        )


def _useful_length(prompt_tokens: int, context_length: int, trained_length: int) -> int:
    """The context that the prompt needs; 0 where it is longer than the model was trained for."""
    enough = _rounded_up(prompt_tokens + 512)
    length = min(enough, trained_length or enough)
    return length if length > max(prompt_tokens, context_length) else 0


class ConstraintError(InvalidRequestError):
    """A JSON Schema, regular expression, choice list or grammar is broken or not supported."""


class TemplateError(InvalidRequestError):
    """A chat template raised, ran too long or produced too much."""


class UnsupportedError(InvalidRequestError):
    """This engine or this model lacks the feature that was asked for."""


class ModelError(_OneLine):
    """A model is not there or cannot be used."""


class ModelNotFoundError(ModelError):
    """No model of that name is on this machine."""


class ModelLoadError(ModelError):
    """The file is not a GGUF that llama.cpp can load."""


class InsufficientMemoryError(ModelError):
    """The model or its context does not fit into the memory that this process may use."""


class EngineError(NbllmError):
    """The engine failed, not the request."""


class EndpointError(ModelError, EngineError):
    """Another server is not there, or did not answer to the end; what to do about it is not in any traceback."""


class EngineClosedError(EngineError):
    """The engine was closed, or this process was forked from the one that owns it."""


class EngineDeadError(EngineError):
    """The engine cannot go on; the requests in flight were ended with this error."""


def in_one_line(error: BaseException, line: str) -> None:
    """Let IPython show an interrupt, or another error that is not of the tree, as this line; the first one counts."""
    if not hasattr(error, "_render_traceback_") and not _shows_all():
        # No reference to the error itself: a cycle would keep all the frames below it.
        shown: Callable[[], list[str]] = partial(list[str], (f"{type(error).__name__}: {line}",))
        error._render_traceback_ = shown  # type: ignore[attr-defined]


def _shows_all() -> bool:
    return bool(os.environ.get("NBLLM_DEBUG"))  # read here and not in config: the lowest room imports nothing


def _rounded_up(tokens: int, multiple: int = 256) -> int:
    return -(-tokens // multiple) * multiple
