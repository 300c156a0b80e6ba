"""Libraries that only some scores need."""

from __future__ import annotations

import importlib
from typing import Any

from nbllm.errors import UnsupportedError

_PACKAGES = {"rapidfuzz.distance": "rapidfuzz", "rouge_score.rouge_scorer": "rouge-score", "jsonschema": "jsonschema"}


def library(module: str, score: str) -> Any:
    """A module of the extra `score`.

    Raises:
        UnsupportedError: it is not installed; the message says what to type.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UnsupportedError(
            f'the score {score!r} needs {_PACKAGES[module]}: pip install "nbllm[score]" (or {_PACKAGES[module]})'
        ) from error
