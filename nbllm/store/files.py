"""Writing a file in one piece."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def replace_file(target: Path, data: bytes, *, prefix: str = "", suffix: str = "") -> None:
    """Write beside the target and rename, so that a reader sees the old file or the new one and never half of one.

    Args:
        prefix: of the unfinished file's name, and `suffix`: what a clean-up knows it by.
    """
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=prefix, suffix=suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
