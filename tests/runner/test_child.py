"""The runner's own process: what it says, what it leaves, and when it goes."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

import pytest

from nbllm.engine.interface import Engine
from nbllm.errors import InsufficientMemoryError, ModelLoadError, NbllmError, ParameterError
from nbllm.runner import handshake, records
from nbllm.runner.child import Runner
from nbllm.runner.client import RemoteEngine
from nbllm.runner.errors import ProtocolError
from nbllm.runner.spec import LoadOptions, RunnerSpec
from nbllm.testing import ScriptedEngine
from tests.runner.played import played_child

TOKEN = "open sesame"
WAIT_S = 10.0


@pytest.fixture
def spec(tmp_path: Path) -> RunnerSpec:
    return RunnerSpec(path=tmp_path / "a.gguf", name="a", folder=tmp_path / "run", file_hash="ab" * 32)


class Served:
    """A `Runner` whose words can be read."""

    def __init__(self, spec: RunnerSpec, load: Callable[[RunnerSpec], Engine]) -> None:
        self.runner = Runner(handshake.Order(spec=spec, token=TOKEN), load)
        self._ours, theirs = os.pipe()
        self._answers = cast("BinaryIO", os.fdopen(theirs, "wb", buffering=0))

    def outcome(self) -> handshake.Ready | handshake.Failed:
        self.runner.serve(self._answers)
        self._answers.close()
        with os.fdopen(self._ours, "rb") as answers:
            return handshake.decoded_outcome(answers.read())


def test_runner_says_where_it_listens_and_leaves_a_record(spec: RunnerSpec) -> None:
    engine = ScriptedEngine()
    served = Served(spec, lambda wanted: engine)
    outcome = served.outcome()
    assert isinstance(outcome, handshake.Ready)
    (record,) = records.find(spec.folder)
    assert (record.kind, record.pid, record.address) == ("runner", os.getpid(), outcome.address)
    assert (record.token, record.file_hash) == (TOKEN, spec.file_hash)
    remote = RemoteEngine(record.address, token=record.token)
    assert remote.info == engine.info
    remote.close()
    served.runner.close()
    assert os.listdir(spec.folder) == []
    assert engine.is_closed


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ModelLoadError("a.gguf: is cut"), id="file"),
        pytest.param(InsufficientMemoryError("needs 40 GiB"), id="memory"),
        pytest.param(ParameterError("threads", "must be 1"), id="option"),
    ],
)
def test_runner_passes_on_why_it_cannot_load(spec: RunnerSpec, error: NbllmError) -> None:
    def load(wanted: RunnerSpec) -> Engine:
        raise error

    served = Served(spec, load)
    outcome = served.outcome()
    assert isinstance(outcome, handshake.Failed)
    assert repr(outcome.reason()) == repr(error)
    served.runner.wait()  # it ends by itself
    assert served.runner.exit_code == 1
    served.runner.close()
    assert os.listdir(spec.folder) == []


def test_runner_tells_a_bug_as_the_engines_error(spec: RunnerSpec) -> None:
    def load(wanted: RunnerSpec) -> Engine:
        raise RuntimeError("a bug")

    outcome = Served(spec, load).outcome()
    assert isinstance(outcome, handshake.Failed)
    assert "RuntimeError: a bug" in str(outcome.reason())


def test_runner_that_is_stopped_while_it_loads_says_and_leaves_nothing(spec: RunnerSpec) -> None:
    def load(wanted: RunnerSpec) -> Engine:
        served.runner.close()
        return ScriptedEngine()

    served = Served(spec, load)
    with pytest.raises(ProtocolError):
        served.outcome()
    assert os.listdir(spec.folder) == []


def test_runner_is_not_recorded_when_its_file_cannot_be_hashed(
    spec: RunnerSpec, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = RunnerSpec(path=spec.path, name="a", folder=spec.folder)
    served = Served(unknown, lambda wanted: ScriptedEngine())
    assert isinstance(served.outcome(), handshake.Ready)
    assert records.find(spec.folder) == []
    assert "cannot be read" in caplog.text
    served.runner.close()


def test_runner_computes_the_hash_that_it_was_not_given(spec: RunnerSpec) -> None:
    spec.path.write_bytes(b"weights")
    served = Served(RunnerSpec(path=spec.path, name="a", folder=spec.folder), lambda wanted: ScriptedEngine())
    served.outcome()
    (record,) = records.find(spec.folder)
    assert record.file_hash == hashlib.sha256(b"weights").hexdigest()
    served.runner.close()


def test_order_survives_the_way(spec: RunnerSpec) -> None:
    order = handshake.Order(
        spec=RunnerSpec(path=spec.path, name="a", folder=spec.folder, options=LoadOptions(context_length=512)),
        token="t",
    )
    assert handshake.decoded_order(handshake.encoded(order)) == order


def test_order_for_a_file_without_a_proper_name_is_refused(spec: RunnerSpec) -> None:
    odd = RunnerSpec(path=Path("/models/\udcff.gguf"), name="a", folder=spec.folder)
    with pytest.raises(ModelLoadError, match="rename it"):
        handshake.encoded(handshake.Order(spec=odd, token="t"))


@pytest.mark.parametrize("line", [b"", b"{}", b"\xff", b"[" * 5000, b'{"type": "ready"}', b'{"type": "other"}'])
def test_words_that_are_no_handshake_are_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        handshake.decoded_outcome(line)
    with pytest.raises(ProtocolError):
        handshake.decoded_order(line)


# ---- the process


class Child:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self.stdin: IO[bytes] = process.stdin
        self.stdout: IO[bytes] = process.stdout
        self.stderr: IO[bytes] = process.stderr

    def order(self, spec: RunnerSpec) -> None:
        self.stdin.write(handshake.encoded(handshake.Order(spec=spec, token=TOKEN)))

    def outcome(self) -> handshake.Ready | handshake.Failed:
        return handshake.decoded_outcome(self.stdout.readline())


@contextmanager
def child(command: list[str], cwd: Path | None = None) -> Iterator[Child]:
    with subprocess.Popen(
        command, bufsize=0, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        alarm = threading.Timer(30, process.kill)
        alarm.start()
        try:
            yield Child(process)
        finally:
            alarm.cancel()
            process.kill()


def test_module_answers_an_order_that_is_none() -> None:
    root = Path(records.__file__).parents[2]
    with child([sys.executable, "-m", "nbllm.runner"], cwd=root) as process:
        process.stdin.write(b"nonsense\n")
        outcome = process.outcome()
        assert isinstance(outcome, handshake.Failed)
        assert "not an order" in str(outcome.reason())
        assert process.process.wait(WAIT_S) == 2


def test_noise_on_stdout_does_not_reach_the_handshake(spec: RunnerSpec) -> None:
    with child(played_child("os.write(1, b'noise'); print('more', flush=True)")) as process:
        process.order(spec)
        assert isinstance(process.outcome(), handshake.Ready)
        process.stdin.close()
        assert process.stdout.read() == b""
        assert b"noisemore" in process.stderr.read()


@pytest.mark.parametrize("way", ["stdin", "SIGTERM"])
def test_child_goes_when_it_is_told_and_leaves_nothing(spec: RunnerSpec, way: str) -> None:
    with child(played_child()) as process:
        process.order(spec)
        assert isinstance(process.outcome(), handshake.Ready)
        if way == "stdin":
            process.stdin.close()
        else:
            process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(WAIT_S) == 0
        assert os.listdir(spec.folder) == []


def test_child_that_is_stopped_while_it_loads_goes_at_once(spec: RunnerSpec) -> None:
    with child(played_child("print('loading', flush=True); time.sleep(60)")) as process:
        process.order(spec)
        assert process.stderr.readline() == b"loading\n"
        process.stdin.close()
        assert process.process.wait(WAIT_S) == 0
        assert process.stdout.read() == b""


def test_child_that_cannot_free_its_model_goes_after_its_grace(spec: RunnerSpec) -> None:
    with child(played_child("ScriptedEngine.close = lambda self: time.sleep(60)")) as process:
        process.order(spec)
        assert isinstance(process.outcome(), handshake.Ready)
        process.stdin.close()
        assert process.process.wait(WAIT_S) == 1
        assert b"Timeout" in process.stderr.read()


def test_child_is_not_interrupted_by_a_ctrl_c_for_its_parent(spec: RunnerSpec) -> None:
    with child(played_child()) as process:
        process.order(spec)
        outcome = process.outcome()
        assert isinstance(outcome, handshake.Ready)
        process.process.send_signal(signal.SIGINT)
        remote = RemoteEngine(outcome.address, token=TOKEN)
        assert remote.tokenize("a")
        remote.close()
