"""Paths as a person reads them."""

from __future__ import annotations

import os
from pathlib import Path


def at_home(path: str | os.PathLike[str]) -> str:
    """The path with ~ in place of the user's home folder."""
    text = os.fspath(path)
    try:
        return os.path.join("~", Path(text).relative_to(Path.home()))
    except (ValueError, RuntimeError):  # it is not there; this user has no home
        return text
