"""What can go wrong on the way of a model to this machine."""

from __future__ import annotations

from nbllm.errors import ModelError, ModelNotFoundError


class PullError(ModelError):
    """The model could not be got; the message says what to do."""


class NotThereError(PullError, ModelNotFoundError):
    """There is no such model, or not for this person: asking again is of no use."""
