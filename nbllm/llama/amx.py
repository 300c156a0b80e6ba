"""A guard against one compiler's bug that kills the process on processors with AMX.

GCC before 11.5, 12.4 and 13.3 tells the optimizer that `_tile_loadconfig` reads 8 bytes of its 64-byte argument
(GCC bug 114098), so the rest of the tile configuration is never written and the first matrix product of a
llama.cpp built with it raises a general protection fault. Debian 12 ships such a compiler. llama.cpp uses AMX only
through its "extra" buffer types, so a model loaded without those is safe, and a little slower.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

_FIXED = {11: 5, 12: 4, 13: 3}
_COMPILER = re.compile(rb"GCC: \([^)]{0,80}\) (\d+)\.(\d+)\.\d+")
_logger = logging.getLogger("nbllm.llama")


def extra_buffers_are_safe(system_info: str, library_folder: Path) -> bool:
    """Whether weights may be laid out for AMX and its like.

    Args:
        system_info: what `llama_print_system_info` says.
        library_folder: where the built shared objects are; each names its compiler.
    """
    if "AMX_INT8 = 1" not in system_info:
        return True
    for path in sorted(library_folder.glob("*ggml-cpu*")):
        found = _COMPILER.search(path.read_bytes())
        if found and _is_broken(int(found[1]), int(found[2])):
            _logger.warning(
                "llama.cpp was compiled by GCC %s.%s, whose AMX code crashes: AMX is left unused; rebuild "
                "llama-cpp-python with a newer GCC to use it",
                found[1].decode(),
                found[2].decode(),
            )
            return False
    return True


def _is_broken(major: int, minor: int) -> bool:
    return major < 11 or minor < _FIXED.get(major, 0)
