"""llama-cpp-python's ctypes binding, without the package around it.

Importing the package also imports its server's parts, jinja2, numpy and a disk cache, a sixth of a second that the
first answer would wait for; the binding is two of its files. They are executed here under a name of their own, so a
program's own `import llama_cpp` finds an untouched package, and the operating system gives both the one shared library.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_PACKAGE = "llama_cpp"
_HELPERS = f"{_PACKAGE}._ctypes_extensions"


def import_bindings() -> ModuleType:
    """The module with llama.cpp's functions and structs.

    Raises:
        ImportError: llama-cpp-python is not installed, or is another release than is known here.
        OSError, RuntimeError: its shared library cannot be loaded.
    """
    known = sys.modules.get(f"{_PACKAGE}.llama_cpp")
    if known is not None and hasattr(known, "_lib") and not _is_being_imported(known):
        return known
    folder = _folder()
    lent = _HELPERS not in sys.modules
    if lent:
        # The binding imports its helpers by their full name, which Python looks up before it asks for the package.
        sys.modules.setdefault(_HELPERS, _executed(_HELPERS, folder / "_ctypes_extensions.py"))
    try:
        return _executed("nbllm.llama.llama_cpp", folder / "llama_cpp.py")
    finally:
        if lent and _PACKAGE not in sys.modules:
            sys.modules.pop(_HELPERS, None)


def _folder() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("llama-cpp-python is not installed", name=_PACKAGE)
    return Path(spec.submodule_search_locations[0])


def _is_being_imported(module: ModuleType) -> bool:
    return bool(getattr(module.__spec__, "_initializing", False))


def _executed(name: str, path: Path) -> ModuleType:
    spec: ModuleSpec | None = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported", name=name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
