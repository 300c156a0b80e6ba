"""What an interrupt shows when it comes before any row is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nbllm.errors import in_one_line


@contextmanager
def calm_interrupts() -> Iterator[None]:
    """Show one in one line even while the model is loaded, say; a run has a line of its own, which stays."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        in_one_line(interrupt, "it was stopped; run it again")
        raise
