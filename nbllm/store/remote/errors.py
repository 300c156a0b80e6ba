"""What can go wrong on the way of a model to this machine."""

from __future__ import annotations

from nbllm.errors import ModelError


class PullError(ModelError):
    """The model could not be got; the message says what to do."""
