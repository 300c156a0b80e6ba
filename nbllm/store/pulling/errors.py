"""What goes wrong while a model comes."""

from __future__ import annotations

from nbllm.errors import ModelLoadError
from nbllm.store.remote.errors import PullError


class UnusableError(PullError, ModelLoadError):
    """What comes cannot be used here, so that none of it is kept."""


class CutError(Exception):
    """A connection ended early, or could not be made: the same request may well succeed.

    Args:
        why: the kind of failure, without anything that was sent.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class UnreachableError(CutError):
    """Nothing answers: asking at once again is of no use."""
