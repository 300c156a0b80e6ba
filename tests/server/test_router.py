"""Which engine answers: a kernel's, a runner's, or another server's."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nbllm.core import GenerateRequest
from nbllm.engine.interface import Engine
from nbllm.errors import ParameterError
from nbllm.runner import records
from nbllm.runner.host import EngineHost
from nbllm.runner.listener import Listener, listen
from nbllm.server.router import Wish
from nbllm.store.hashes import model_hash
from nbllm.testing import ScriptedEngine, toy_engine
from tests.server.serving import CHAT, EMBEDDINGS, OTHER, TOY, Site, chat, wait_until
from tests.store.gguf_writer import tiny_model, u32, write


class Kernel:
    """What a kernel that shares its model has: an engine behind a socket, and a record of it."""

    def __init__(self, site: Site, engine: Engine, *, model: str = TOY, serves: bool = True, **changes: Any) -> None:
        self.engine = engine
        self.listener: Listener = listen(site.runtime_dir)
        token = secrets.token_hex(16)
        self.host = EngineHost(engine, self.listener, token)
        if serves:
            self.host.start()
        file_hash = changes.pop("file_hash", None) or model_hash(site.models_dir / f"{model}.gguf")
        info = replace(engine.info, **changes)
        record = records.new_record("kernel", info, address=self.listener.address, token=token, file_hash=file_hash)
        self.path = records.write(site.runtime_dir, record)
        site.service.router.kernels._read_at = float("-inf")

    def close(self) -> None:
        records.remove(self.path)
        self.host.close()
        self.engine.close()


Start = Callable[..., Kernel]


@pytest.fixture
def kernel(site: Site) -> Iterator[Start]:
    kernels: list[Kernel] = []
    # of all files in the folder the hash must be of one only
    write(site.models_dir / f"{OTHER}.gguf", tiny_model(llama__context_length=u32(4096)))

    def start(engine: Engine | None = None, **options: Any) -> Kernel:
        kernels.append(Kernel(site, engine or ScriptedEngine(), **options))
        return kernels[-1]

    yield start
    for one in kernels:
        one.close()


def _said(site: Site, **more: Any) -> str:
    answer = site.post(CHAT, chat(**more))
    assert answer.status == 200, answer.body
    return str(answer.json()["choices"][0]["message"]["content"])


def _scripted(*answers: str, until_cancelled: bool = False) -> ScriptedEngine:
    engine = ScriptedEngine()
    for answer in answers:
        engine.enqueue(answer, until_cancelled=until_cancelled)
    return engine


def test_a_kernels_model_answers_and_nothing_is_loaded(site: Site, kernel: Start) -> None:
    kernel(_scripted("from the kernel"))
    assert _said(site) == "from the kernel"
    assert site.cast.specs == []


def test_every_route_goes_to_the_kernel(site: Site, kernel: Start) -> None:
    kernel(toy_engine())
    assert site.post(EMBEDDINGS, {"model": TOY, "input": "x"}).status == 200
    assert site.post("v1/tokenize", {"model": TOY, "content": "x"}).status == 200
    assert site.post(CHAT + "/input_tokens", chat()).status == 200
    assert site.post(CHAT, chat(stream=True)).events[-1] == "[DONE]"
    assert site.cast.specs == []


def test_another_file_of_the_same_name_does_not_do(site: Site, kernel: Start) -> None:
    kernel(_scripted("no"), file_hash="0" * 64)
    site.scripted("from a runner")
    assert _said(site) == "from a runner"


def test_the_kernels_model_is_known_by_its_file(site: Site, kernel: Start) -> None:
    kernel(_scripted("other"), model=OTHER)
    assert _said(site, model=OTHER) == "other"
    assert [spec.name for spec in site.cast.specs] == []
    site.scripted("toy")
    assert _said(site) == "toy"


def test_a_context_too_small_does_not_do(tmp_path: Path) -> None:
    with Site(tmp_path, context_length=2048) as site:
        small = Kernel(site, _scripted("no"), context_length=1024)
        site.scripted("from a runner")
        assert _said(site) == "from a runner"
        small.close()
        large = Kernel(site, _scripted("from the kernel"), context_length=2048)
        assert _said(site) == "from the kernel"
        large.close()


@pytest.mark.parametrize(
    ("trained", "held", "wanted", "is_used"),
    [
        pytest.param(2048, 2048, 131072, True, id="all that it has learnt"),
        pytest.param(2048, 1024, 131072, False, id="less than it has learnt"),
        pytest.param(2048, 1024, 1024, True, id="what is wanted"),
        pytest.param(None, 2048, 131072, False, id="unknown, less"),
        pytest.param(None, 2048, 2048, True, id="unknown, what is wanted"),
    ],
)
def test_a_wish_beyond_what_the_model_has_learnt(
    site: Site, kernel: Start, trained: int | None, held: int, wanted: int, is_used: bool
) -> None:
    length = None if trained is None else u32(trained)
    path = write(site.models_dir / "sized.gguf", tiny_model(llama__context_length=length, llama__block_count=u32(7)))
    try:
        kernel(model="sized", context_length=held)
        router = site.service.router
        target = site.run(router.target("sized"))
        assert target.context_length == (trained or 0)
        site.run(router.ask(target, Wish(context_length=wanted), lambda engine: engine.info))
        assert (site.cast.specs == []) is is_used
    finally:
        path.unlink()


def test_kernels_that_are_not_shared_are_left_alone(tmp_path: Path) -> None:
    with Site(tmp_path, share_kernels=False) as site:
        private = Kernel(site, _scripted("no"))
        site.scripted("from a runner")
        assert _said(site) == "from a runner"
        private.close()


def test_a_key_without_the_scope_kernel_gets_a_runner(site: Site, kernel: Start) -> None:
    kernel(_scripted("from the kernel"))
    site.scripted("from a runner")
    plain = site.keys.create("plain").secret
    answer = site.post(CHAT, chat(), bare=True, headers={"X-Api-Key": plain})
    assert answer.json()["choices"][0]["message"]["content"] == "from a runner"
    trusted = site.keys.create("trusted", scopes=["chat", "kernel"]).secret
    answer = site.post(CHAT, chat(), bare=True, headers={"X-Api-Key": trusted})
    assert answer.json()["choices"][0]["message"]["content"] == "from the kernel"


def test_a_frozen_kernel_is_passed_over(site: Site, kernel: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has taken the connection, and then sits in code that holds the GIL."""
    monkeypatch.setattr("nbllm.server.router.SIGN_WITHIN_S", 0.1)
    frozen = kernel(_scripted("warm", "late"))
    assert _said(site) == "warm"
    gate = threading.Event()
    for guest in frozen.host._guests:
        monkeypatch.setattr(guest._channel, "_on_payload", lambda payload: gate.wait(10))
    site.scripted("from a runner", "again")
    assert _said(site) == "from a runner"
    assert _said(site) == "again"  # and left alone for a while, not waited for each time
    gate.set()


def test_a_kernel_that_does_not_greet_is_passed_over(
    site: Site, kernel: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbllm.server.kernels.SIGN_WITHIN_S", 0.1)
    monkeypatch.setattr("nbllm.runner.client.CONNECT_TIMEOUT_S", 0.2)
    kernel(_scripted("never"), serves=False)
    site.scripted("from a runner")
    assert _said(site) == "from a runner"


def test_a_kernel_that_went_is_replaced_by_a_runner(site: Site, kernel: Start) -> None:
    gone = kernel(_scripted("once"))
    assert _said(site) == "once"
    gone.host.close()  # its record is still there
    site.scripted("from a runner")
    assert _said(site) == "from a runner"


def test_a_kernel_that_dies_in_the_middle_is_a_clear_error(site: Site, kernel: Start) -> None:
    dying = kernel(_scripted("some", until_cancelled=True))
    with site.raw_post(CHAT, chat(stream=True)) as connection:
        data = b""
        while b"some" not in data:
            data += connection.recv(65536)
        dying.host.close()
        while more := connection.recv(65536):
            data += more
            if b"0\r\n\r\n" in data:
                break
    assert b'"code":"engine_failed"' in data
    site.scripted("from a runner")
    assert _said(site) == "from a runner"


def test_a_client_that_goes_ends_its_request_in_the_kernel(site: Site, kernel: Start) -> None:
    engine = _scripted("a", until_cancelled=True)
    kernel(engine)
    with site.raw_post(CHAT, chat()):
        wait_until(lambda: engine.tickets)
    wait_until(lambda: engine.tickets[0].is_done)


def test_what_the_kernel_refuses_is_told_and_not_asked_elsewhere(site: Site, kernel: Start) -> None:
    kernel(toy_engine())
    assert site.post(CHAT, chat("x" * 3000)).error["code"] == "context_length_exceeded"
    assert site.cast.specs == []


def test_the_record_of_a_dead_process_is_nothing(site: Site, kernel: Start) -> None:
    made = kernel()
    text = made.path.read_text()
    pid = f'"pid":{os.getpid()}'
    assert pid in text
    dead = made.path.with_name(f"999999-{'0' * 16}.json")
    dead.write_text(text.replace(pid, '"pid":999999'))
    dead.chmod(0o600)
    made.path.unlink()
    site.scripted("from a runner")
    assert _said(site) == "from a runner"
    assert not dead.exists()


@pytest.mark.parametrize("harm", ["readable", "garbage", "link"])
def test_a_record_that_is_not_to_be_trusted_is_nothing(site: Site, kernel: Start, harm: str) -> None:
    made = kernel(_scripted("no"))
    if harm == "readable":
        made.path.chmod(0o644)
    elif harm == "garbage":
        made.path.write_bytes(b"{" * 10_000)
    else:
        target = made.path.rename(site.folder / "elsewhere.json")
        made.path.symlink_to(target)
    site.service.router.kernels._read_at = float("-inf")
    site.scripted("from a runner")
    assert _said(site) == "from a runner"


def test_the_kernel_is_said_to_be_active(site: Site, kernel: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(site.service.router.kernels, "_on_use", told.append)
    kernel(_scripted("x"))
    _said(site)
    assert told == [os.getpid()]


# ---- names


@pytest.mark.parametrize("name", ["default", "gpt-4", "Toy", "toy.gguf"])
def test_names_lead_to_the_same_runner(site: Site, name: str) -> None:
    _said(site)
    _said(site, model=name)
    assert len(site.cast.specs) == 1


def test_two_models_have_two_runners(site: Site) -> None:
    site.scripted("one")
    site.scripted("two")
    assert (_said(site), _said(site, model=OTHER)) == ("one", "two")
    assert [spec.name for spec in site.cast.specs] == [TOY, OTHER]


def test_runners_are_loaded_as_the_settings_say(tmp_path: Path) -> None:
    with Site(tmp_path, context_length=1024, max_sequences=3) as site:
        _said(site)
        options = site.cast.specs[0].options
        assert (options.context_length, options.max_sequences) == (1024, 3)
        assert site.cast.specs[0].path == site.models_dir / f"{TOY}.gguf"


def test_requests_for_a_model_that_loads_wait_together(site: Site) -> None:
    site.cast.gate.clear()
    engine = site.scripted("a", "a", "a")
    connections = [site.raw_post(CHAT, chat()) for _ in range(3)]
    wait_until(lambda: site.in_flight == 3)
    site.cast.gate.set()
    for connection in connections:
        with connection:
            assert connection.recv(100).split()[1] == b"200"
    assert len(site.cast.specs) == 1
    assert all(isinstance(request, GenerateRequest) for request in engine.requests)


# ---- other servers, and kernels that serve


def test_model_of_another_server_is_listed_and_served(site: Site, tmp_path: Path) -> None:
    far = {"base_url": f"{site.url}v1", "model": TOY, "api_key_env": "FAR_KEY"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAR_KEY", site.token)
        with Site(tmp_path, endpoints={"far": far}, default_model="far") as near:
            assert "far" in [entry["id"] for entry in near.get("v1/models").json()["data"]]
            engine = site.scripted("from far away")
            answer = near.post(CHAT, chat() | {"model": "default"}).json()
            assert answer["choices"][0]["message"]["content"] == "from far away"
            assert answer["model"] == "far"
            engine.enqueue(ParameterError("messages", "too odd"))
            refused = near.post(CHAT, chat() | {"model": "far"})
            assert (refused.status, "too odd" in refused.error["message"]) == (400, True)
            assert near.cast.runners == []
    site.listen_to_log()


def test_other_server_that_is_away_is_an_honest_503(tmp_path: Path, site: Site) -> None:
    with Site(tmp_path, endpoints={"far": {"base_url": "http://127.0.0.1:9/v1", "model": "x"}}) as near:
        answer = near.post(CHAT, chat() | {"model": "far"}, timeout_s=60)
    assert answer.status == 503
    assert answer.headers["Retry-After"]
    site.listen_to_log()


def test_kernel_that_serves_is_not_taken_for_idle(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    long_ago = datetime(2000, 1, 1, tzinfo=UTC)
    kernels = {
        name: SimpleNamespace(last_activity=long_ago, provisioner=SimpleNamespace(pid=pid))
        for name, pid in {"serving": os.getpid(), "idle": 1}.items()
    }
    manager = SimpleNamespace(list_kernel_ids=lambda: list(kernels), get_kernel=kernels.__getitem__)
    monkeypatch.setattr(site.app, "kernel_manager", manager, raising=False)
    engine = ScriptedEngine()
    engine.enqueue("hello")
    served = Kernel(site, engine)
    try:
        assert site.post(CHAT, chat()).status == 200
    finally:
        served.close()
    assert kernels["serving"].last_activity > long_ago
    assert kernels["idle"].last_activity == long_ago
