"""What can go wrong on the way of a model to this machine."""

from __future__ import annotations

from nbllm.errors import ModelError


class PullError(ModelError):
    """The model could not be got; the message says what to do."""


class CutError(Exception):
    """A connection ended early, or could not be made: the same request may well succeed.

    Args:
        why: the kind of failure, without anything that was sent.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
