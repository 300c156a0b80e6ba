"""A model that another process seems to hold: its host runs here, and its record names that process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec

from nbllm.config import load_config
from nbllm.runner import records
from nbllm.runner.host import EngineHost
from nbllm.runner.listener import listen
from nbllm.runner.records import Kind, Record
from nbllm.store.hashes import model_hash
from nbllm.testing import ScriptedEngine
from nbllm.testing.vocabulary import TOY_MODEL

TOKEN = "open sesame"


def scripted(path: Path) -> ScriptedEngine:
    """An engine whose model has a file."""
    return ScriptedEngine(replace(TOY_MODEL, name=path.stem, path=str(path)))


@contextmanager
def other_process() -> Iterator[records.Process]:
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    started = records._start_of(process.pid)
    assert started is not None
    try:
        yield msgspec.structs.replace(records.this_process(), pid=process.pid, started=started)
    finally:
        process.communicate()


def left_record(engine: ScriptedEngine, host: EngineHost, process: records.Process, kind: Kind = "kernel") -> Record:
    """What that process would have written of the engine."""
    made = records.new_record(
        kind, engine.info, address=host.address, token=TOKEN, file_hash=model_hash(engine.info.model.path)
    )
    record = msgspec.structs.replace(made, pid=process.pid, started=process.started)
    records.write(load_config().runtime_dir, record)
    return record


@contextmanager
def hosted(engine: ScriptedEngine) -> Iterator[EngineHost]:
    host = EngineHost(engine, listen(records.prepare(load_config().runtime_dir)), TOKEN)
    host.start()
    try:
        yield host
    finally:
        host.close()
