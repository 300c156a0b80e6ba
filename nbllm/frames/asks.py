"""What a table asks a model, row by row, and what comes back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from nbllm.core import ChoiceRequest, Chunk, EmbedRequest, GenerateRequest, Message
from nbllm.core.numbers import as_number
from nbllm.errors import NbllmError, ParameterError
from nbllm.session.cache import AnswerCache
from nbllm.session.response import Response

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Progress = Callable[[int, int], None]
OnError = Literal["keep", "raise", "skip"]
OnInterrupt = Literal["raise", "return"]
_NUM_SEEDS = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Ask:
    """One row's request, with what only its verb knows. Of rows that ask the same, the first one's stands for all.

    Attributes:
        request: has one answer: `n` is 1, and there is one text to embed.
        misfit: what of an answer the columns have no place for, None if nothing.
        name: of the row, which its error begins with; "" where the error stands beside the row.

    Raises:
        ParameterError: the request has more answers.
    """

    request: GenerateRequest | ChoiceRequest | EmbedRequest
    misfit: Callable[[Response], str | None] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.request, GenerateRequest) and self.request.sampling.n != 1:
            raise ParameterError("n", "a row has one answer; repeat the row for more")
        if isinstance(self.request, EmbedRequest) and len(self.request.texts) != 1:
            raise ParameterError("texts", f"a row has one text, not {len(self.request.texts)}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one row. Rows that asked the same share it.

    Attributes:
        value: a Response (without its token ids), of each choice the log-probability, or a float32 unit vector; None
            where there was an error. An answer that was cut before it had its form is there, beside the error.
        error: why there is no value, or no whole one.
        cached: the value was computed by an earlier run.
        duration_s: the seconds that it took to compute, the wait for its turn left out, whenever that was.
    """

    value: Response | tuple[float, ...] | NDArray[np.float32] | None
    error: NbllmError | None = None
    cached: bool = False
    duration_s: float = 0.0


class Watch(Protocol):
    """Sees answers while they grow. All but `grew` are called by the thread that runs the rows."""

    def began(self, name: str, total: int) -> None:
        """A model's turn has come, for so many rows."""

    def grew(self, ask: Ask, chunk: Chunk) -> None:
        """A piece of a row's answer came. Called by the engine's thread, so it must be quick."""

    def show(self) -> None:
        """Time has passed; called several times a second."""

    def ended(self, error: str) -> None:
        """The model's turn is over; `error` says why it had none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a table is run.

    Attributes:
        cache: True is the cache of cells and tables, False none.
        on_error: "raise" ends the run with the first row's error; "keep" leaves it in the row's Outcome and says how
            many there are; "skip" leaves it there and says nothing.
        progress: True shows a bar, False shows nothing, None a bar and an estimate when it takes longer than two
            seconds; a function is called with the numbers of finished and of all rows, and nothing is shown.
        max_concurrency: rows that are with the engine at a time, None is 256.
        on_interrupt: "return" gives what is finished, and None for the other rows.
        limit: only the first so many rows are asked; None is all.
        background: for whoever calls `run`, see `nbllm.frames.jobs.in_background`.
        label: what stands before the bar.
        watch: sees what is computed while it grows; of its methods `run` calls `grew` and `show`.

    Raises:
        ParameterError: a value is not one of these.
    """

    cache: bool | AnswerCache = True
    on_error: OnError = "keep"
    progress: bool | Progress | None = None
    max_concurrency: int | None = None
    on_interrupt: OnInterrupt = "raise"
    limit: int | None = None
    background: bool = False
    label: str = ""
    watch: Watch | None = None

    def __post_init__(self) -> None:
        _check_one_of("on_error", self.on_error, get_args(OnError))
        _check_one_of("on_interrupt", self.on_interrupt, get_args(OnInterrupt))
        _check_count("max_concurrency", self.max_concurrency, 1)
        _check_count("limit", self.limit, 0)
        if not isinstance(self.background, bool):
            raise ParameterError("background", f"must be True or False, not {self.background!r:.100}")
        if not isinstance(self.cache, bool | AnswerCache):
            raise ParameterError("cache", f"must be True, False or an AnswerCache, not {self.cache!r:.100}")
        if self.progress is not None and not isinstance(self.progress, bool) and not callable(self.progress):
            raise ParameterError("progress", f"must be True, False or a function, not {self.progress!r:.100}")


def row_seed(seed: int, messages: Sequence[Message], repeat: int = 0) -> int:
    """A seed made of the row's content, so that neither its place nor its neighbours change its answer."""
    content = [[message.role, message.content, message.name] for message in messages]
    digest = hashlib.sha256(json.dumps([seed, repeat, content]).encode("ascii")).digest()
    return int.from_bytes(digest[:8], "big") % _NUM_SEEDS


def _check_one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ParameterError(name, f"must be {' or '.join(map(repr, allowed))}, not {value!r:.100}")


def _check_count(name: str, value: object, low: int) -> None:
    number = as_number(int, value)
    if value is not None and (number is None or number < low):
        raise ParameterError(name, f"must be a whole number from {low} on, or None, not {value!r:.100}")
