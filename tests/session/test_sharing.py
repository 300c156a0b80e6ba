from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nbllm.config import load_config
from nbllm.core import Chunk, GenerateRequest, Message
from nbllm.runner import records
from nbllm.runner.client import RemoteEngine
from nbllm.session import sharing
from nbllm.session.model import Model
from nbllm.store import hashes
from nbllm.testing import ScriptedEngine
from tests.forked import succeeds_in_child
from tests.session.holding import scripted

WAIT_S = 10.0
HI = GenerateRequest(messages=(Message("user", "hi"),))


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """With a path that is short enough for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="nbllm-") as parent:
        monkeypatch.setenv("NBLLM_RUNTIME_DIR", f"{parent}/runtime")
        yield Path(parent, "runtime")


@pytest.fixture(autouse=True)
def _nothing_shared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sharing, "_state", sharing._State())
    monkeypatch.setattr(sharing, "_HEAD_START_S", 0.0)
    yield
    sharing.set_on(False)


@pytest.fixture
def engine(tmp_path: Path) -> ScriptedEngine:
    path = tmp_path / "toy.gguf"
    path.write_bytes(b"GGUF")
    return scripted(path)


@pytest.fixture
def model(engine: ScriptedEngine) -> Model:
    return Model(engine)


def offered(model: Model) -> Model:
    sharing.offer(model, load_config())
    return model


def test_shared_model_is_found_and_answers(model: Model, engine: ScriptedEngine, folder: Path) -> None:
    shared = sharing.share(model)
    assert shared.wait(WAIT_S)
    assert shared.problem == ""
    (record,) = records.find(folder)
    assert record == shared.record
    assert (record.kind, record.pid, record.path) == ("kernel", os.getpid(), engine.info.model.path)
    assert record.file_hash == hashes.model_hash(record.path)
    engine.enqueue("hello")
    remote = RemoteEngine(record.address, token=record.token)
    assert Model(remote).chat("hi").text == "hello"
    remote.close()


def test_share_twice_is_one(model: Model, folder: Path) -> None:
    assert sharing.share(model) is sharing.share(model)
    assert sharing.shared_models()[0].wait(WAIT_S)
    assert len(records.find(folder)) == 1


def test_unshare_takes_record_and_socket_back(model: Model, folder: Path) -> None:
    assert sharing.share(model).wait(WAIT_S)
    assert len(list(folder.iterdir())) == 2
    sharing.unshare(model)
    sharing.unshare(model)
    assert list(folder.iterdir()) == []
    assert sharing.shared_models() == []


def test_withdrawn_before_it_was_ready_leaves_nothing(
    model: Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_hash, is_hashing = threading.Event(), threading.Event()

    def slow_hash(path: str) -> str:
        is_hashing.set()
        may_hash.wait(WAIT_S)
        return "ab" * 32

    monkeypatch.setattr(hashes, "model_hash", slow_hash)
    shared = sharing.share(model)  # returns though nothing is hashed yet
    assert is_hashing.wait(WAIT_S)
    assert shared.record is None
    sharing.unshare(model)
    may_hash.set()
    assert shared.wait(WAIT_S)
    assert list(folder.iterdir()) == []


def test_off_cancels_what_guests_asked_and_on_shares_again(model: Model, engine: ScriptedEngine, folder: Path) -> None:
    sharing.set_on(True)
    offered(model)
    assert sharing.shared_models()[0].wait(WAIT_S)
    engine.enqueue("once upon", until_cancelled=True)
    (record,) = records.find(folder)
    remote = RemoteEngine(record.address, token=record.token)
    is_over = threading.Event()

    def hear(chunk: Chunk) -> None:
        if chunk.finish_reason is not None:
            is_over.set()

    remote.submit(HI, hear)
    assert not engine.tickets[0].is_done
    sharing.set_on(False)
    assert is_over.wait(WAIT_S)
    deadline = time.monotonic() + WAIT_S
    while not engine.tickets[0].is_done and time.monotonic() < deadline:  # both ends hear of it on their own
        time.sleep(0.005)
    assert engine.tickets[0].is_done
    assert not remote.is_alive
    assert (sharing.is_on(), list(folder.iterdir())) == (False, [])
    sharing.set_on(True)
    assert sharing.shared_models()[0].wait(WAIT_S)
    assert len(records.find(folder)) == 1


def test_closed_model_is_not_shared_when_sharing_is_turned_on(model: Model) -> None:
    sharing.unshare(offered(model))
    sharing.set_on(True)
    assert sharing.shared_models() == []


@pytest.mark.parametrize(
    ("is_kernel", "setting", "wish", "is_on"),
    [
        pytest.param(True, "", None, True, id="kernel"),
        pytest.param(False, "", None, False, id="script"),
        pytest.param(True, "0", None, False, id="kernel with the setting off"),
        pytest.param(True, "", False, False, id="kernel told off"),
        pytest.param(False, "", True, True, id="script told on"),
    ],
)
def test_is_on_by_default_in_kernels_only(
    model: Model, monkeypatch: pytest.MonkeyPatch, is_kernel: bool, setting: str, wish: bool | None, is_on: bool
) -> None:
    monkeypatch.delitem(sys.modules, "ipykernel.kernelapp", raising=False)
    if is_kernel:
        monkeypatch.setitem(sys.modules, "ipykernel.kernelapp", os)  # any module: it is only looked for
    monkeypatch.setenv("NBLLM_SHARE_KERNELS", setting)
    if wish is not None:
        sharing.set_on(wish)
    assert sharing.is_on() == is_on
    offered(model)
    assert bool(sharing.shared_models()) == is_on


def test_problem_is_told_and_leaves_nothing(engine: ScriptedEngine, folder: Path) -> None:
    gone = ScriptedEngine(replace(engine.info.model, path=f"{engine.info.model.path}-gone"))
    shared = sharing.share(Model(gone))
    assert shared.wait(WAIT_S)
    assert "gone" in shared.problem
    assert shared.record is None
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_folder_that_others_may_write_to_is_refused(model: Model, folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    shared = sharing.share(model)
    assert shared.wait(WAIT_S)
    assert "chmod 700" in shared.problem
    assert list(folder.iterdir()) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_forked_child_shares_nothing_and_removes_nothing(model: Model, folder: Path) -> None:
    sharing.set_on(True)
    assert sharing.shared_models() == []
    offered(model)
    assert sharing.shared_models()[0].wait(WAIT_S)
    (record,) = records.find(folder)

    def use() -> None:
        assert not sharing.is_on()
        assert sharing.shared_models() == []
        sharing.unshare(model)
        sharing.set_on(False)
        sharing._withdraw_all()

    assert succeeds_in_child(use)
    assert records.find(folder) == [record]
    remote = RemoteEngine(record.address, token=record.token)
    assert remote.tokenize("a")
    remote.close()


def test_end_of_the_process_takes_everything_back(engine: ScriptedEngine, folder: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from nbllm.session import sharing\nfrom nbllm.session.model import Model\n"
        "from tests.session.holding import scripted\n"
        "shared = sharing.share(Model(scripted(Path(sys.argv[1]))))\n"
        "print(shared.wait(20), shared.record is not None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, engine.info.model.path],
        capture_output=True, text=True, check=True, timeout=60, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout == "True True\n"
    assert list(folder.iterdir()) == []
