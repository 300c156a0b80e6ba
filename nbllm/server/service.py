"""What all handlers share: who may come in, how many, and where to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from nbllm._version import __version__
from nbllm.config import Config
from nbllm.server.access import Guard
from nbllm.server.keyslots import KeySlots
from nbllm.server.metrics import IN_FLIGHT
from nbllm.server.pulls import Pulls

if TYPE_CHECKING:
    from nbllm.server.router import Router


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much, and how long.

    Attributes:
        max_body_bytes: of a request.
        max_queue: requests in flight at a time, all models together.
        hold_s: how long a stream's headers wait for the first token, so that an error before it has its status.
        ping_s: between two comments on a silent stream, which keep proxies from closing it.
        stall_s: how long a client may leave its stream unread.
        allow_token_ids: take ids of tokens for embeddings.
    """

    max_body_bytes: int = 16 * 2**20
    max_queue: int = 256
    hold_s: float = 10.0
    ping_s: float = 15.0
    stall_s: float = 30.0
    allow_token_ids: bool = False


class Service:
    """The extension's state, in the settings of the Tornado app as `nbllm_service`.

    Args:
        config: the settings as they are now.
        answers_any_name: whether the owner has said what every name means that means nothing else ("*"). Where that
            is only our own choice for GPT4All's clients, Ollama's are told that there is no such model.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        *,
        guard: Guard,
        router: Router,
        limits: Limits,
        answers_any_name: bool = False,
    ) -> None:
        self.config, self.guard, self.router, self.limits = config, guard, router, limits
        self.answers_any_name = answers_any_name
        self.pulls = Pulls(config)
        self.fingerprint = _fingerprint()
        self.slots = KeySlots()
        self._num_in_flight = 0

    @property
    def is_full(self) -> bool:
        return self._num_in_flight >= self.limits.max_queue

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of the places that `is_full` counts."""
        self._num_in_flight += 1
        IN_FLIGHT.inc()
        try:
            yield
        finally:
            self._num_in_flight -= 1
            IN_FLIGHT.dec()


def _fingerprint() -> str:
    """What answers depend on besides the request, beginning with "b" as llama.cpp's builds do."""
    return f"b{version('llama-cpp-python')}-nbllm-{__version__}"
