"""Which model a table is asked of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nbllm.errors import ModelNotFoundError, ParameterError
from nbllm.frames import using
from nbllm.frames.using import check_model, model_of
from nbllm.session.model import Model
from nbllm.testing import ScriptedEngine
from nbllm.testing.vocabulary import TOY_MODEL


class Loading:
    """In the place of `nbllm.load` and of what it has loaded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.models: list[Model] = []
        self.asked: list[Any] = []
        monkeypatch.setattr(using, "load", self.load)
        monkeypatch.setattr(using, "loaded_models", lambda: list(self.models))

    def load(self, model: Any = None) -> Model:
        self.asked.append(model)
        return self.add("default" if model is None else str(model))

    def add(self, path: str) -> Model:
        self.models.append(Model(ScriptedEngine(replace(TOY_MODEL, path=path))))
        return self.models[-1]


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Loading:
    return Loading(monkeypatch)


def gguf(path: Path) -> Path:
    path.write_bytes(b"GGUF")
    return path


def test_model_is_itself(loading: Loading) -> None:
    model = Model(ScriptedEngine())
    assert model_of(model) is model
    assert not loading.asked


def test_no_model_is_the_last_one_or_the_default(loading: Loading) -> None:
    default = model_of()
    assert loading.asked == [None]
    assert model_of(None) is default
    last = loading.add("other.gguf")
    assert model_of() is last
    assert loading.asked == [None]


@pytest.mark.parametrize("kind", [str, Path], ids=["text", "path"])
def test_path_is_loaded_once_whatever_its_options(loading: Loading, tmp_path: Path, kind: type) -> None:
    path, other = gguf(tmp_path / "a.gguf"), gguf(tmp_path / "b.gguf")
    known = loading.add(str(path))
    loading.add(str(other))
    link = tmp_path / "link.gguf"
    link.symlink_to(path)
    assert model_of(kind(path)) is model_of(kind(link)) is known
    assert not loading.asked
    model_of(kind(gguf(tmp_path / "c.gguf")))
    assert loading.asked == [kind(tmp_path / "c.gguf")]


def test_unknown_name_says_how_to_get_a_model(loading: Loading) -> None:
    with pytest.raises(ModelNotFoundError):
        model_of("no-such-model")
    assert not loading.asked


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        pytest.param(5, "must be a name, a path or a Model", id="a number"),
        pytest.param("http://localhost:8000/v1", "nbllm.connect", id="a URL"),
    ],
)
def test_what_is_no_model_says_what_to_type(wrong: Any, hint: str) -> None:
    for asked in (model_of, check_model):
        with pytest.raises(ParameterError, match=hint):
            asked(wrong)


def test_check_of_a_model_loads_nothing(loading: Loading, tmp_path: Path) -> None:
    for model in (None, Model(ScriptedEngine()), gguf(tmp_path / "a.gguf")):
        check_model(model)
    with pytest.raises(ModelNotFoundError):
        check_model("no-such-model")
    assert not loading.asked
