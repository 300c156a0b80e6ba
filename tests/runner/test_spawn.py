"""Starting runners, holding on to them, and losing them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

import nbllm
from nbllm.core import Chunk, GenerateRequest, SamplingParams
from nbllm.engine.interface import aiter_chunks, iter_chunks
from nbllm.errors import EngineClosedError, EngineDeadError, EngineError, ModelLoadError, ParameterError
from nbllm.runner import records, spawn
from nbllm.runner.errors import LoadCrashError, ProtocolError
from nbllm.runner.spawn import RunningRunner
from nbllm.runner.spec import LoadOptions, RunnerSpec
from nbllm.runner.supervisor import Supervisor
from tests.runner.played import ends_within, played_child, python

WAIT_S = 10.0
ENDLESS = GenerateRequest(text="Once", sampling=SamplingParams(temperature=0, max_tokens=400, logit_bias={2: -100}))
SHORT = GenerateRequest(text="Once", sampling=SamplingParams(temperature=0, max_tokens=4))

Play = Callable[[list[str]], None]


@pytest.fixture
def spec(tmp_path: Path) -> RunnerSpec:
    return RunnerSpec(path=tmp_path / "a.gguf", name="a", folder=tmp_path / "run", file_hash="ab" * 32)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Have `start` run another command."""

    def set_command(command: list[str]) -> None:
        monkeypatch.setattr(spawn, "command", lambda _: command)

    return set_command


@pytest.fixture
def started() -> Iterator[Callable[[RunnerSpec], RunningRunner]]:
    runners: list[RunningRunner] = []

    def start(spec: RunnerSpec) -> RunningRunner:
        runners.append(spawn.start(spec, timeout_s=30))
        return runners[-1]

    yield start
    for runner in runners:
        runner.stop()


class Heard:
    """The end of an answer that another thread gives."""

    def __init__(self) -> None:
        self.has_begun, self.is_over = threading.Event(), threading.Event()
        self.last: Chunk | None = None

    def __call__(self, chunk: Chunk) -> None:
        self.has_begun.set()
        if chunk.finish_reason is not None:
            self.last = chunk
            self.is_over.set()

    @property
    def error(self) -> BaseException | None:
        assert self.is_over.wait(WAIT_S)
        assert self.last is not None
        return self.last.error


# ---- starting


def test_runner_answers_and_leaves_nothing_when_it_is_stopped(
    spec: RunnerSpec, play: Play, started: Callable[[RunnerSpec], RunningRunner]
) -> None:
    play(played_child())
    runner = started(spec)
    heard, gone = Heard(), threading.Event()
    runner.when_gone(gone.set)
    runner.engine.submit(SHORT, heard)
    assert heard.has_begun.wait(WAIT_S)
    assert runner.is_alive
    assert runner.returncode is None
    assert runner.rss_bytes > 1 << 20
    assert os.getsid(runner.pid) != os.getsid(0)
    assert os.readlink(f"/proc/{runner.pid}/cwd") == "/"
    runner.stop()
    runner.stop()
    assert gone.is_set()
    assert isinstance(heard.error, EngineClosedError)
    assert [runner.is_alive, runner.returncode, runner.rss_bytes] == [False, 0, 0]
    assert os.listdir(spec.folder) == []
    late = threading.Event()
    runner.when_gone(late.set)
    assert late.is_set()


def test_runners_leave_no_descriptor_and_no_thread_behind(spec: RunnerSpec, play: Play) -> None:
    play(played_child())
    others = set(threading.enumerate())  # of models that other tests have loaded
    spawn.start(spec).stop()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        spawn.start(spec).stop()
    play(python("import sys; sys.exit(1)"))
    with pytest.raises(LoadCrashError):
        spawn.start(spec)
    for thread in set(threading.enumerate()) - others:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert len(os.listdir("/proc/self/fd")) == before


def test_token_is_in_no_argument_and_no_variable(
    spec: RunnerSpec, play: Play, started: Callable[[RunnerSpec], RunningRunner]
) -> None:
    play(played_child())
    runner = started(spec)
    while not (found := records.find(spec.folder)):
        assert runner.is_alive
    for name in ("cmdline", "environ"):
        assert found[0].token.encode() not in Path(f"/proc/{runner.pid}/{name}").read_bytes()


def test_what_the_runner_says_of_the_model_is_raised_as_it_is(spec: RunnerSpec) -> None:
    spec.path.write_bytes(b"not a model")
    with pytest.raises(ModelLoadError, match="not a GGUF") as caught:
        spawn.start(spec)
    assert not isinstance(caught.value, LoadCrashError)
    with pytest.raises(ParameterError, match="gpu_layers"):
        spawn.start(RunnerSpec(path=spec.path, name="a", folder=spec.folder, options=LoadOptions(gpu_layers=-5)))


def test_modules_in_the_working_folder_are_not_taken_for_the_runners(
    spec: RunnerSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nbllm.py").write_text("raise SystemExit('taken')")
    (tmp_path / "msgspec.py").write_text("raise SystemExit('taken')")
    monkeypatch.chdir(tmp_path)
    spec.path.write_bytes(b"not a model")
    with pytest.raises(ModelLoadError, match="not a GGUF"):
        spawn.start(spec)


def test_folder_that_others_can_write_to_is_refused(spec: RunnerSpec, play: Play) -> None:
    play(played_child())
    spec.folder.mkdir()
    spec.folder.chmod(0o777)
    with pytest.raises(ParameterError, match="chmod 700"):
        spawn.start(spec)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        pytest.param(
            "import os, sys; print('GGML_ASSERT(n > 0) failed', file=sys.stderr, flush=True); os.abort()",
            r"SIGABRT: GGML_ASSERT\(n > 0\) failed",
            id="abort",
        ),
        pytest.param("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "memory runs out", id="killed"),
        pytest.param("import sys; sys.exit(3)", "exit code 3", id="exit"),
    ],
)
def test_crash_while_loading_names_its_cause(spec: RunnerSpec, play: Play, script: str, message: str) -> None:
    play(python(script))
    with pytest.raises(LoadCrashError, match=message):
        spawn.start(spec)


def test_runner_that_is_not_ready_in_time_is_ended(spec: RunnerSpec, play: Play, tmp_path: Path) -> None:
    play(python(f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"))
    with pytest.raises(EngineError, match=r"not loaded within 1 s"):
        spawn.start(spec, timeout_s=1)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_runner_that_talks_nonsense_is_ended(spec: RunnerSpec, play: Play) -> None:
    play(python("import time; print('hello', flush=True); time.sleep(60)"))
    with pytest.raises(ProtocolError, match="hello"):
        spawn.start(spec)


def test_start_can_be_given_up_by_another_thread(spec: RunnerSpec, play: Play) -> None:
    play(python("import time; time.sleep(60)"))
    cancelled = threading.Event()
    alarm = threading.Timer(0.2, cancelled.set)
    alarm.start()
    with pytest.raises(EngineClosedError, match="given up"):
        spawn.start(spec, cancelled)
    alarm.join()


def test_python_that_is_not_there_is_an_error(spec: RunnerSpec, play: Play) -> None:
    play(["/no/such/python"])
    with pytest.raises(EngineError, match="no process could be started"):
        spawn.start(spec)


def test_stop_ends_a_process_that_listens_to_nothing(spec: RunnerSpec) -> None:
    script = (
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('deaf', file=sys.stderr, flush=True)\nwhile True: time.sleep(60)"
    )
    runner = RunningRunner(spec, python(script))
    while runner.last_words != "deaf":
        assert runner.returncode is None
    runner.stop(grace_s=0.05)
    assert runner.returncode == -signal.SIGKILL


def test_last_words_are_few_and_short(spec: RunnerSpec, play: Play, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "nbllm.runner")
    play(python("import sys; [print(n, 'x' * 10000, file=sys.stderr) for n in range(100)]; sys.exit(1)"))
    with pytest.raises(LoadCrashError, match="99 xxx") as caught:
        spawn.start(spec)
    assert len(str(caught.value)) < 4000
    assert "0 xxx" in caplog.text


# ---- losing one


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGKILL])
def test_death_ends_every_request_with_an_error(
    spec: RunnerSpec, play: Play, started: Callable[[RunnerSpec], RunningRunner], number: signal.Signals
) -> None:
    play(played_child())
    runner = started(spec)
    all_heard = [Heard() for _ in range(8)]
    gone = threading.Event()
    runner.when_gone(gone.set)
    for heard in all_heard:
        runner.engine.submit(SHORT, heard)
    assert all(heard.has_begun.wait(WAIT_S) for heard in all_heard)
    os.kill(runner.pid, number)
    for heard in all_heard:
        assert isinstance(heard.error, EngineDeadError)
        assert f"a was ended by {number.name}" in str(heard.error)
    assert gone.wait(WAIT_S)
    assert runner.returncode == -number
    assert not runner.is_alive
    assert os.listdir(spec.folder) == []
    with pytest.raises(EngineDeadError, match=number.name):
        runner.engine.submit(SHORT, Heard())


def test_socket_of_a_runner_that_died_without_a_record_is_removed(
    spec: RunnerSpec, play: Play, started: Callable[[RunnerSpec], RunningRunner]
) -> None:
    play(played_child())
    unrecorded = RunnerSpec(path=spec.path, name="a", folder=spec.folder)  # there is no file to hash
    runner = started(unrecorded)
    assert len(os.listdir(spec.folder)) == 1
    gone = threading.Event()
    runner.when_gone(gone.set)
    os.kill(runner.pid, signal.SIGKILL)
    assert gone.wait(WAIT_S)
    assert os.listdir(spec.folder) == []


_PARENT = """
import os, sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from nbllm.runner import spawn
from nbllm.runner.spec import RunnerSpec
spawn.command = lambda _: {command!r}
runner = spawn.start(RunnerSpec(path=Path("/a"), name="a", folder=Path({folder!r}), file_hash="ab" * 32))
if {forks} and not os.fork():
    time.sleep(15)
    os._exit(0)
print(runner.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("forks", [pytest.param(False, id="alone"), pytest.param(True, id="leaves a fork")])
def test_runner_goes_when_its_parent_is_killed(spec: RunnerSpec, forks: bool) -> None:
    root = str(Path(nbllm.__file__).parents[1])
    script = _PARENT.format(root=root, command=played_child(), folder=str(spec.folder), forks=forks)
    with subprocess.Popen(python(script), stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout is not None
        runner = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        assert ends_within(6, runner)
        os.close(runner)
        os.killpg(parent.pid, signal.SIGKILL)
    assert records.find(spec.folder) == []
    assert os.listdir(spec.folder) == []


# ---- with a model


@pytest.fixture
def real_spec(smollm2_path: Path, tmp_path: Path) -> RunnerSpec:
    options = LoadOptions(context_length=512, max_sequences=8, kv_tokens=4096)
    return RunnerSpec(path=smollm2_path, name="smollm2", folder=tmp_path / "run", options=options)


@pytest.mark.model
def test_real_runner_answers_dies_and_is_replaced(real_spec: RunnerSpec) -> None:
    async def run() -> None:
        supervisor = Supervisor(partial(spawn.start, timeout_s=60.0), fits=spawn.fits)
        async with await supervisor.lease(real_spec) as lease:
            assert lease.engine.info.context_length == 512
            chunks = aiter_chunks(lease.engine, ENDLESS)
            await anext(chunks)
            (state,) = supervisor.loaded()
            os.kill(state.pid, signal.SIGABRT)
            rest = [chunk async for chunk in chunks]
            assert isinstance(rest[-1].error, EngineDeadError)
            assert "SIGABRT" in str(rest[-1].error)
        async with asyncio.timeout(20), await supervisor.lease(real_spec) as lease:
            text = "".join([chunk.text async for chunk in aiter_chunks(lease.engine, SHORT)])
            assert text
        await supervisor.close()
        assert os.listdir(real_spec.folder) == []

    asyncio.run(run())


@pytest.mark.model
def test_real_runner_that_is_killed_ends_eight_answers(
    real_spec: RunnerSpec, started: Callable[[RunnerSpec], RunningRunner]
) -> None:
    runner = started(real_spec)
    all_heard = [Heard() for _ in range(8)]
    for heard in all_heard:
        runner.engine.submit(ENDLESS, heard)
    assert all(heard.has_begun.wait(60) for heard in all_heard)
    os.kill(runner.pid, signal.SIGKILL)
    assert [type(heard.error) for heard in all_heard] == [EngineDeadError] * 8


@pytest.mark.model
def test_real_runner_that_decodes_goes_with_its_stdin(
    real_spec: RunnerSpec, started: Callable[[RunnerSpec], RunningRunner]
) -> None:
    runner = started(real_spec)
    heard = Heard()
    runner.engine.submit(ENDLESS, heard)
    assert heard.has_begun.wait(60)
    runner.stop()
    assert runner.returncode == 0


@pytest.mark.model
def test_real_runner_leaves_a_record_that_another_process_can_use(
    real_spec: RunnerSpec, started: Callable[[RunnerSpec], RunningRunner]
) -> None:
    from nbllm.runner.client import RemoteEngine
    from nbllm.store import model_hash

    started(real_spec)
    wanted = model_hash(real_spec.path)
    while not (found := records.find(real_spec.folder, file_hash=wanted, kinds=("runner",))):
        threading.Event().wait(0.01)
    remote = RemoteEngine(found[0].address, token=found[0].token)
    assert "".join(chunk.text for chunk in iter_chunks(remote, SHORT))
    remote.close()


@pytest.mark.model
def test_memory_fits_a_small_model_and_not_an_endless_one(real_spec: RunnerSpec) -> None:
    assert spawn.fits(real_spec)
    for options in (LoadOptions(context_length=512, kv_tokens=10_000_000), LoadOptions(max_batch=10_000_000)):
        assert not spawn.fits(RunnerSpec(path=real_spec.path, name="a", folder=real_spec.folder, options=options))


def test_memory_of_what_is_no_model_is_left_to_the_runner(spec: RunnerSpec) -> None:
    assert spawn.fits(spec)
    assert sys.executable
