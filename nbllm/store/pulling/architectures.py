"""The architectures that the required release of llama.cpp loads; a test compares them with the library.

They are in a file here, and not asked of the library, because the notebook server pulls and never loads llama.cpp.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("architectures.txt")


@cache
def architectures() -> frozenset[str]:
    return frozenset(_FILE.read_text(encoding="utf-8").split())
