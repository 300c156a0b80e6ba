"""What attaches to what: over engines that say what a test enqueued, and records that other processes seem to leave."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from nbllm.config import load_config
from nbllm.core import Chunk, GenerateRequest, Message
from nbllm.errors import EngineClosedError, EngineDeadError, ParameterError
from nbllm.runner import records, spawn
from nbllm.runner.client import RemoteEngine
from nbllm.runner.host import EngineHost
from nbllm.runner.listener import listen
from nbllm.runner.records import Kind, Record
from nbllm.runner.spec import RunnerSpec
from nbllm.session import attaching
from nbllm.session.attaching import AttachedEngine, LostModelError, attach, live_twin
from nbllm.session.model import Model
from nbllm.testing import ScriptedEngine
from tests.forked import succeeds_in_child
from tests.session.holding import TOKEN, hosted, left_record, other_process, scripted

HI = GenerateRequest(messages=(Message("user", "hi"),))


@dataclass
class Scene:
    """One model's file, another process, and what stands for the runners that would be started."""

    file: Path
    process: records.Process
    stack: ExitStack
    started: list[RunnerSpec] = field(default_factory=list)

    def held(self, kind: Kind = "kernel", file: Path | None = None) -> tuple[ScriptedEngine, Record]:
        """Let the other process hold the model."""
        engine = scripted(file or self.file)
        host = self.stack.enter_context(hosted(engine))
        return engine, left_record(engine, host, self.process, kind)

    def attached(self, **options: Any) -> AttachedEngine:
        engine = attach(str(self.file), "toy", options, load_config())
        self.stack.callback(engine.close)
        return engine

    def twin(self, **options: Any) -> Record | None:
        return live_twin(str(self.file), options, load_config())


class FakeRunner:
    """Stands for a `spawn.RunningRunner`."""

    pid = 77
    returncode: int | None = None

    def __init__(self, host: EngineHost) -> None:
        self.host, self.engine = host, RemoteEngine(host.address, token=TOKEN)

    def stop(self) -> None:
        self.engine.close()

    def farewell(self) -> str:
        return "the process that ran toy was ended by SIGABRT"


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setenv("NBLLM_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setattr(attaching, "SIGN_WITHIN_S", 1.0)
    file = tmp_path / "toy.gguf"
    file.write_bytes(b"GGUF")
    with ExitStack() as stack:
        scene = Scene(file, stack.enter_context(other_process()), stack)

        def start(spec: RunnerSpec, *, timeout_s: float) -> FakeRunner:
            scene.started.append(spec)
            return FakeRunner(stack.enter_context(hosted(scripted(file))))

        monkeypatch.setattr(spawn, "start", start)
        yield scene


# ---- which one


@pytest.mark.parametrize("kind", ["kernel", "runner"])
def test_live_engine_is_used_and_says_where_it_is(scene: Scene, kind: Kind) -> None:
    engine, record = scene.held(kind)
    attached = scene.attached()
    engine.enqueue("hello")
    assert Model(attached).chat("hi").text == "hello"
    assert scene.started == []
    assert attached.info.summary == f"scripted; lives in {kind} process {record.pid}"
    assert (attached.info.model.name, attached.info.model.path) == ("toy", str(scene.file))


def test_runner_is_used_before_a_kernel(scene: Scene) -> None:
    scene.held("runner")
    scene.held("kernel")
    assert "runner process" in scene.attached().info.summary


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"context_length": 4096, "max_sequences": 4, "kv_tokens": 16384, "kv_type": "f16"}, id="all met"),
        pytest.param({"context_length": 100, "max_sequences": 1}, id="less asked for"),
        pytest.param({"context_length": None}, id="nothing asked for"),
    ],
)
def test_engine_that_suits_is_used(scene: Scene, options: dict[str, Any]) -> None:
    _, record = scene.held()
    assert scene.twin(**options) == record
    scene.attached(**options)
    assert scene.started == []


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"context_length": 4097}, id="context"),
        pytest.param({"max_sequences": 5}, id="sequences"),
        pytest.param({"kv_tokens": 16385}, id="pool"),
        pytest.param({"kv_type": "q8_0"}, id="kind of KV"),
        pytest.param({"threads": 1}, id="no record tells of it"),
    ],
)
def test_engine_that_does_not_suit_means_a_runner(scene: Scene, options: dict[str, Any]) -> None:
    scene.held()
    assert scene.twin(**options) is None
    attached = scene.attached(**options)
    (spec,) = scene.started
    assert {name: getattr(spec.options, name) for name in options} == options
    assert (spec.path, spec.name, spec.folder) == (scene.file, "toy", load_config().runtime_dir)
    assert attached.info.summary.endswith("lives in runner process 77")


def test_copy_of_the_file_is_the_same_model(scene: Scene, tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(scene.file.read_bytes())
    scene.held(file=copy)
    assert scene.twin() is None  # which hashes nothing
    assert scene.attached().info.model.path == str(scene.file)
    assert scene.started == []


def test_other_file_of_the_same_size_is_another_model(scene: Scene, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"FUGG")
    scene.held(file=other)
    scene.attached()
    assert len(scene.started) == 1


def test_file_that_was_replaced_is_another_model(scene: Scene) -> None:
    _, record = scene.held()
    scene.file.write_bytes(b"gguf")
    os.utime(scene.file, (record.created + 5, record.created + 5))
    assert scene.twin() is None
    scene.attached()
    assert len(scene.started) == 1


def test_own_engine_is_no_twin(scene: Scene) -> None:
    scene.process = records.this_process()
    scene.held()
    assert scene.twin() is None
    scene.attached()
    assert len(scene.started) == 1


def test_nothing_held_is_no_twin(scene: Scene) -> None:
    assert scene.twin() is None
    load_config().runtime_dir.mkdir()
    assert scene.twin() is None


def test_frozen_kernel_is_passed_over(scene: Scene) -> None:
    engine = scripted(scene.file)
    listener = listen(records.prepare(load_config().runtime_dir))  # it takes connections, and nobody answers
    scene.stack.callback(listener.close)
    with hosted(engine) as host:
        host._listener.close()
        host._listener = listener
        left_record(engine, host, scene.process)
    assert scene.twin() is not None
    scene.attached()
    assert len(scene.started) == 1


def test_socket_without_an_engine_is_passed_over(scene: Scene) -> None:
    engine = scripted(scene.file)
    with hosted(engine) as host:
        left_record(engine, host, scene.process)
    scene.attached()
    assert len(scene.started) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        pytest.param({"context_length": "4096"}, "context_length: must be a whole number, not '4096'", id="text"),
        pytest.param({"threads": 1.5}, "threads: must be a whole number, not 1.5", id="fraction"),
        pytest.param({"use_mmap": 1}, "use_mmap: must be True or False, not 1", id="switch"),
        pytest.param({"kv_type": 8}, "kv_type: must be a text, not 8", id="number"),
    ],
)
def test_option_of_a_wrong_type_is_refused(scene: Scene, options: dict[str, Any], says: str) -> None:
    scene.held()
    with pytest.raises(ParameterError) as caught:
        scene.attached(**options)
    assert str(caught.value) == says
    assert scene.twin(**options) is None


# ---- its end


class Heard:
    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.has_begun, self.is_over = threading.Event(), threading.Event()

    def __call__(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        (self.has_begun if chunk.finish_reason is None else self.is_over).set()


def test_process_that_ends_ends_the_answer_with_one_line(scene: Scene) -> None:
    engine = scripted(scene.file)
    with hosted(engine) as host:
        pid = left_record(engine, host, scene.process).pid
        attached = scene.attached()
        engine.enqueue("once upon", until_cancelled=True)
        heard = Heard()
        attached.submit(HI, heard)
        assert heard.has_begun.wait(10)
        assert attached.is_alive
    assert heard.is_over.wait(10)
    error = heard.chunks[-1].error
    assert isinstance(error, LostModelError)
    says = (
        f"toy is gone: the connection to kernel process {pid} ended; load it again: nbllm.load('toy', engine='server')"
    )
    assert str(error) == says
    assert error._render_traceback_() == [f"LostModelError: {says}"]
    assert (attached.is_alive, attached.is_lost) == (False, True)
    for act in (lambda: attached.tokenize("a"), attached.stats, lambda: attached.submit(HI, heard)):
        with pytest.raises(LostModelError, match="load it again"):
            act()


def test_process_that_ends_between_requests_is_told_at_the_next(scene: Scene) -> None:
    engine = scripted(scene.file)
    with hosted(engine) as host:
        left_record(engine, host, scene.process)
        attached = scene.attached()
    assert not attached.is_lost
    with pytest.raises(EngineDeadError, match="load it again"):
        attached.tokenize("a")
    assert attached.is_lost


def test_own_runner_that_dies_says_how(scene: Scene) -> None:
    attached = scene.attached()
    runner = cast("FakeRunner", attached._runner)
    runner.returncode = -6
    runner.host.close()
    with pytest.raises(LostModelError, match=r"^the process that ran toy was ended by SIGABRT; load it again: "):
        attached.tokenize("a")


def test_process_that_gives_no_sign_has_to_be_loaded_again(scene: Scene) -> None:
    class Frozen:
        is_alive = True
        info = scripted(scene.file).info

        def stats(self) -> None:
            raise EngineDeadError("gave no sign for 2 s")

    attached = AttachedEngine(cast("RemoteEngine", Frozen()), "kernel process 1", name="toy", path="")
    with pytest.raises(LostModelError, match=r"^toy in kernel process 1: gave no sign for 2 s; load it again"):
        attached.stats()
    assert not attached.is_alive


def test_close_leaves_the_engine_where_it_is(scene: Scene) -> None:
    engine, _ = scene.held()
    attached = scene.attached()
    attached.close()
    attached.close()
    assert not engine.is_closed
    assert attached.is_lost is False
    with pytest.raises(EngineClosedError, match="load or attach it again"):
        attached.stats()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_forked_child_is_told_at_once_and_ends_nothing(scene: Scene) -> None:
    attached = scene.attached()

    def use() -> None:
        for act in (attached.stats, lambda: attached.submit(HI, print)):
            with pytest.raises(EngineClosedError, match="forked"):
                act()
        attached.close()

    assert succeeds_in_child(use)
    assert attached.tokenize("a")
