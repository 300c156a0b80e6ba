from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

import nbllm
from nbllm.errors import ModelNotFoundError, ParameterError
from nbllm.frames.distributed import models
from nbllm.frames.distributed.models import received, sent
from nbllm.runner.endpoint import Origin
from nbllm.session.model import Model
from nbllm.testing import ScriptedEngine

_URL = "http://127.0.0.1:1/v1"


def test_sent_none_is_the_last_loaded_by_name_and_else_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "loaded_models", lambda: [])
    assert sent(None) == "smollm2"
    monkeypatch.setattr(models, "loaded_models", lambda: [None, Model(ScriptedEngine())])
    assert sent(None) == "toy"


def test_sent_files_are_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.gguf").touch()
    (tmp_path / "b").touch()
    monkeypatch.chdir(tmp_path)
    assert sent("a.gguf") == sent(Path("a.gguf")) == str(tmp_path / "a.gguf")
    assert sent("b") == "b"  # a name, as for `nbllm.load`
    assert sent("~/elsewhere.gguf") == "~/elsewhere.gguf"


@pytest.mark.parametrize("model", [3, ["smollm2"], object()], ids=["number", "list", "object"])
def test_sent_refuses_what_is_no_model(model: Any) -> None:
    with pytest.raises(ParameterError, match=r"^model: must be a name, a path or what nbllm\.connect gave"):
        sent(model)


def test_a_model_on_a_server_is_made_again_with_all_its_settings() -> None:
    with nbllm.connect(_URL, model="m", api_key="sk-secret", max_concurrency=3, timeout=5, max_retries=2) as model:
        origin = sent(model)
    assert isinstance(origin, Origin)
    assert "sk-secret" not in repr(origin)
    arrived = pickle.loads(pickle.dumps(origin))
    with received(arrived) as again:
        assert sent(again) == origin == Origin(_URL, "m", "sk-secret", "api_key", 3, 5.0, 2)
        assert again is not model


def test_received_servers_are_kept_by_what_they_are() -> None:
    with nbllm.connect(_URL, model="m") as one, nbllm.connect(_URL, model="n") as other:
        first, second = received(sent(one)), received(sent(other))
        assert received(sent(one)) is first
        assert first is not second
        assert [sent(model) for model in (first, second)] == [sent(one), sent(other)]
    for model in (first, second):
        model.close()


def test_received_names_mean_what_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"toy": Model(ScriptedEngine())}
    monkeypatch.setattr(models, "loaded_models", lambda: list(found.values()))
    monkeypatch.setattr(models, "model_of", found.__getitem__)
    assert received("toy") is found["toy"]


def test_received_loads_into_the_worker_where_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(models, "loaded_models", lambda: [])
    monkeypatch.setattr(models, "load", lambda name, **options: calls.append((name, options)))
    received("some name")
    assert calls == [("some name", {"engine": "kernel"})]


def test_received_of_no_model_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "loaded_models", lambda: [])
    with pytest.raises(ModelNotFoundError):
        received("no such model")
