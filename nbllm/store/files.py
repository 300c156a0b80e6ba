"""Writing a file in one piece."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def replace_file(target: Path, data: bytes, *, prefix: str = "", suffix: str = "", mode: int = 0o600) -> None:
    """Write beside the target and rename, so that a reader sees the old file or the new one and never half of one.

    Args:
        prefix: of the unfinished file's name, and `suffix`: what a clean-up knows it by.
        mode: of the file, where the system knows modes; only its owner reads it unless this says otherwise.
    """
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=prefix, suffix=suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        if mode != 0o600:  # mkstemp's
            os.chmod(name, mode)
        os.replace(name, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
