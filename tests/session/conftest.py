from __future__ import annotations

from tests.loaded import smollm2

__all__ = ["smollm2"]
