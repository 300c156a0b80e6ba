"""Where `nbllm.load` puts the real model."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from nbllm.config import load_config
from nbllm.errors import EngineDeadError, ModelLoadError, ParameterError
from nbllm.llama.library import library
from nbllm.runner import records
from nbllm.session import loading, sharing
from nbllm.session.attaching import AttachedEngine
from nbllm.session.cachekey import engine_options
from nbllm.session.loading import load, loaded_models
from nbllm.session.model import Model
from tests.session.holding import hosted, left_record, other_process, scripted

SMALL: dict[str, Any] = {"context_length": 256, "max_sequences": 1, "kv_tokens": 256}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("NBLLM_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setattr(loading, "_loaded", {})
    monkeypatch.setattr(sharing, "_state", sharing._State())
    monkeypatch.setattr(sharing, "_HEAD_START_S", 0.0)
    yield tmp_path / "runtime"
    for model in loaded_models():
        model.close()


@pytest.fixture
def twin(smollm2_path: Path) -> Iterator[records.Record]:
    """The model is held by another process, it seems."""
    engine = scripted(smollm2_path)
    with other_process() as process, hosted(engine) as host:
        yield left_record(engine, host, process)


def runner_of(model: Model) -> psutil.Process:
    assert isinstance(model.engine, AttachedEngine)
    assert model.engine._runner is not None
    return psutil.Process(model.engine._runner.pid)


@pytest.mark.model
@pytest.mark.usefixtures("smollm2_path")
def test_server_starts_a_runner_that_goes_with_the_model(folder: Path) -> None:
    with load("smollm2", engine="server", **SMALL) as model:
        assert load("smollm2", engine="server", **SMALL) is model
        assert loaded_models() == [model]
        process = runner_of(model)
        assert model.info.summary.endswith(f"lives in runner process {process.pid}")
        assert model.chat("What is the capital of France?", temperature=0, max_tokens=12).text
        assert model.count_tokens("one two") == 2
        assert model.embed("a").shape == (1, 576)
        assert model.score("The capital of France is", " Paris").logprob > -3
    assert not process.is_running()
    assert loaded_models() == []
    assert records.find(folder) == []


@pytest.mark.model
@pytest.mark.usefixtures("smollm2_path")
def test_unusual_flash_attention_is_told_and_what_is_usual_is_not() -> None:
    with load("smollm2", **SMALL, kv_type="q8_0", flash_attention=True) as model:
        assert model.info.flash_attention is None, "a quantized KV needs it"
    unusual = not library().has_gpu
    with load("smollm2", engine="server", **SMALL, kv_type="f16", flash_attention=unusual) as model:
        assert model.info.flash_attention is unusual
        assert engine_options(model.info)["flash_attention"] is unusual


@pytest.mark.model
@pytest.mark.usefixtures("smollm2_path")
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_dead_runner_is_told_and_another_load_starts_a_new_one() -> None:
    model = load("smollm2", engine="server", **SMALL)
    process = runner_of(model)
    stream = model.stream("Tell me a long story.", max_tokens=200)
    next(stream)
    os.kill(process.pid, signal.SIGABRT)
    with pytest.raises(EngineDeadError, match=r"SIGABRT.*load it again: nbllm.load\('smollm2', engine='server'\)"):
        list(stream)
    assert model not in loaded_models()
    again = load("smollm2", engine="server", **SMALL)
    assert again is not model
    assert again.chat("Hi", max_tokens=1).usage.prompt_tokens
    model.close()
    assert loaded_models() == [again]


@pytest.mark.model
@pytest.mark.usefixtures("smollm2_path")
def test_runner_that_dies_unseen_is_replaced() -> None:
    model = load("smollm2", engine="server", **SMALL)
    process = runner_of(model)
    process.kill()
    while model.engine.is_alive:  # type: ignore[attr-defined]  # it is an AttachedEngine
        process.is_running()
    again = load("smollm2", engine="server", **SMALL)
    assert again is not model
    assert runner_of(again).pid != process.pid


@pytest.mark.model
@pytest.mark.usefixtures("smollm2_path")
def test_kernel_and_server_are_kept_apart_and_the_last_asked_for_is_last() -> None:
    there = load("smollm2", engine="server", **SMALL)
    here = load("smollm2", **SMALL)
    assert here is not there
    assert load("smollm2", engine="kernel", **SMALL) is here
    assert loaded_models() == [there, here]
    assert load("smollm2", engine="server", **SMALL) is there
    assert loaded_models() == [here, there]


@pytest.mark.model
@pytest.mark.parametrize(
    ("engine", "num_lines"), [pytest.param("auto", 1, id="auto"), pytest.param("kernel", 0, id="kernel")]
)
def test_live_twin_is_told_of_once(
    twin: records.Record, caplog: pytest.LogCaptureFixture, engine: loading.Place, num_lines: int
) -> None:
    caplog.set_level(logging.WARNING, "nbllm")
    with load("smollm2", engine=engine, **SMALL) as model:
        assert not isinstance(model.engine, AttachedEngine)
        load("smollm2", engine=engine, **SMALL)
    said = (
        f"{twin.name} is loaded in kernel process {twin.pid} already: "
        "nbllm.load('smollm2', engine='server') uses that one copy"
    )
    assert [record.getMessage() for record in caplog.records] == [said] * num_lines


@pytest.mark.model
@pytest.mark.usefixtures("twin")
def test_server_attaches_to_the_live_twin() -> None:
    with load("smollm2", engine="server") as model:
        assert model.info.summary.startswith("scripted; lives in kernel process")


@pytest.mark.model
@pytest.mark.usefixtures("smollm2_path")
def test_loaded_model_is_shared_until_it_is_closed(folder: Path) -> None:
    sharing.set_on(True)
    with load("smollm2", **SMALL):
        assert sharing.shared_models()[0].wait(60)
        (record,) = records.find(folder)
        assert (record.name, record.context_length, record.max_sequences) == ("smollm2", 256, 1)
    assert records.find(folder) == []
    assert list(folder.iterdir()) == []


@pytest.mark.model
@pytest.mark.usefixtures("smollm2_path")
def test_close_of_an_old_model_leaves_the_new_one() -> None:
    old = load("smollm2", **SMALL)
    old.close()
    new = load("smollm2", **SMALL)
    old.close()
    assert loaded_models() == [new]


@pytest.mark.parametrize("engine", ["moon", "", None, ["server"]])
def test_unknown_place_is_refused(engine: Any) -> None:
    with pytest.raises(ParameterError, match=r"^engine: must be 'auto', 'kernel' or 'server', not "):
        load("smollm2", engine=engine)


def test_option_that_is_no_option_names_the_closest() -> None:
    with pytest.raises(ParameterError, match="engine"):
        load("smollm2", engin="server")


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        pytest.param({"threads": 0}, ParameterError, "threads: must be a whole number from 1", id="range"),
        pytest.param({}, ModelLoadError, "broken.gguf", id="file"),
    ],
)
def test_what_the_runner_says_is_what_the_user_sees(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"no GGUF")
    with pytest.raises(error, match=says):
        load(path, engine="server", **options)
    assert loaded_models() == []
    assert records.find(load_config().runtime_dir) == []


@pytest.mark.model
@pytest.mark.usefixtures("smollm2_path")
def test_settings_say_what_a_name_means_and_how_large_a_model_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "config.toml"
    settings.write_text('context_length = 300\nmax_sequences = 1\n[aliases]\nsmall = "smollm2"\n')
    monkeypatch.setenv("NBLLM_CONFIG", str(settings))
    model = load("small")
    assert (model.name, model.info.max_sequences) == ("smollm2", 1)
    assert 300 <= model.info.context_length < 600
    assert load("smollm2", context_length=600).info.context_length >= 600


def test_endpoint_of_the_settings_is_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tmp_path / "config.toml"
    settings.write_text('[endpoints.far]\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "big"\n')
    monkeypatch.setenv("NBLLM_CONFIG", str(settings))
    model = load("far")
    assert model.engine.model_name() == "big"  # type: ignore[attr-defined]  # an EndpointEngine
    model.close()
    with pytest.raises(ParameterError, match="context_length: far is a model on another server"):
        load("far", context_length=5)
