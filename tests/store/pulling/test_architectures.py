"""The shipped list of architectures against the library itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from nbllm.store.pulling.architectures import architectures
from tests.store.gguf_writer import gguf, text

_UNKNOWN = "unknown model architecture"
_PROGRAM = """
import ctypes, json, sys
import llama_cpp

said = []
log = llama_cpp.llama_log_callback(lambda level, text, data: said.append(text.decode(errors="replace")))
llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
options = llama_cpp.llama_model_default_params()
options.vocab_only, options.n_gpu_layers = True, 0
known = []
for path, name in json.load(sys.stdin):
    said.clear()
    model = llama_cpp.llama_model_load_from_file(path.encode(), options)
    if model:
        llama_cpp.llama_model_free(model)
    if not any("unknown model architecture" in line for line in said):
        known.append(name)
print(json.dumps(known))
"""


def library() -> Path:
    spec = find_spec("llama_cpp")
    assert spec is not None
    folders = [Path(folder) / "lib" for folder in spec.submodule_search_locations or ()]
    found = [
        path for folder in folders for path in folder.iterdir() if re.match(r"(lib)?llama\.(so|dylib|dll)", path.name)
    ]
    return found[0]


def known_to_the_library(names: list[str], folder: Path) -> set[str]:
    files = []
    for number, name in enumerate(names):
        path = folder / f"{number}.gguf"
        path.write_bytes(gguf({"general.architecture": text(name)}))
        files.append((str(path), name))
    command = [sys.executable, "-c", _PROGRAM]
    done = subprocess.run(command, input=json.dumps(files), capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_every_architecture_is_the_librarys(tmp_path: Path) -> None:
    names = sorted(architectures())
    assert known_to_the_library([*names, "gptoss", "mllama"], tmp_path) == set(names)


@pytest.mark.skipif(sys.platform == "win32", reason="another compiler lays the names out differently")
def test_every_architecture_of_the_library_is_listed(tmp_path: Path) -> None:
    """Of the names that lie together in it, as text: a new release has new ones."""
    data = library().read_bytes()
    end = data.index(b"\0(unknown)\0", data.index(b"\0starcoder\0"))
    near = data[data.rindex(b"\0clip\0", 0, end) : end].split(b"\0")
    names = sorted({name.decode() for name in near if re.fullmatch(rb"[a-z][a-z0-9._-]{1,23}", name)} - {"clip"})
    assert len(names) > 100
    assert known_to_the_library(names, tmp_path) <= architectures()
