"""`lora=`: what may be typed, and what it does to the bundled model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nbllm.core import Adapter, Preset
from nbllm.errors import ModelLoadError, ModelNotFoundError, ParameterError
from nbllm.session.loading import load
from nbllm.session.loras import adapters
from nbllm.session.model import Model
from nbllm.session.requests import Options
from nbllm.testing import ScriptedEngine
from tests import lora
from tests.loaded import CONTEXT

_HERE = os.path.abspath("a.gguf")
_OWN = (Adapter("/own/0.gguf", 0.25), Adapter("/own/1.gguf"))
_QUESTION = "Name three colours."
_ASKED = {"temperature": 0, "max_tokens": 12}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        pytest.param(None, None, id="nothing"),
        pytest.param([], (), id="none"),
        pytest.param("a.gguf", (Adapter(_HERE),), id="path"),
        pytest.param(Path("a.gguf"), (Adapter(_HERE),), id="Path"),
        pytest.param("~/a.gguf", (Adapter(os.path.expanduser("~/a.gguf")),), id="home"),
        pytest.param({"path": "a.gguf", "scale": -0.5}, (Adapter(_HERE, -0.5),), id="scale"),
        pytest.param(["a.gguf", {"path": "/b"}], (Adapter(_HERE), Adapter("/b")), id="list"),
        pytest.param({"id": 0}, (_OWN[0],), id="id"),
        pytest.param([{"id": 1, "scale": 0.5}], (Adapter("/own/1.gguf", 0.5),), id="id and scale"),
        pytest.param(_OWN[1], (_OWN[1],), id="Adapter"),
    ],
)
def test_lora_is_read(typed: Any, meant: tuple[Adapter, ...] | None) -> None:
    assert adapters(typed, _OWN) == meant
    assert Options.of({"lora": typed}, _OWN).chat("x").adapters == meant


@pytest.mark.parametrize(
    ("typed", "own", "said"),
    [
        pytest.param(3, _OWN, "must be the path", id="number"),
        pytest.param("", _OWN, "must be the path", id="empty"),
        pytest.param({}, _OWN, "must be the path", id="empty dict"),
        pytest.param({"path": "a", "id": 0}, _OWN, "must be the path", id="path and id"),
        pytest.param({"path": b"a"}, _OWN, "must be the path", id="bytes"),
        pytest.param({"path": "a", "weight": 1}, _OWN, "has no key 'weight'", id="unknown key"),
        pytest.param({"path": "a", "scale": float("nan")}, _OWN, "scale", id="NaN"),
        pytest.param({"path": "a", "scale": 1e9}, _OWN, "scale", id="large"),
        pytest.param({"path": "a", "scale": None}, _OWN, "scale", id="no scale"),
        pytest.param({"id": 2}, _OWN, "have the ids 0 to 1", id="id out of range"),
        pytest.param({"id": "x"}, _OWN, "whole number", id="id of text"),
        pytest.param({"id": 0}, (), "no adapters of its own", id="model without"),
        pytest.param({"id": 0}, None, "give its path here", id="unknown model"),
        pytest.param([["a"]], _OWN, "must be the path", id="list in list"),
    ],
)
def test_lora_that_means_nothing_is_refused(typed: Any, own: tuple[Adapter, ...] | None, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        adapters(typed, own)


def test_call_chooses_among_the_adapters_of_the_preset() -> None:
    engine = ScriptedEngine()
    model = Model(engine, preset=Preset(name="mario", base="toy", adapters=_OWN))
    asked: list[dict[str, Any]] = [{}, {"lora": {"id": 1}}, {"lora": []}]
    for options in asked:
        engine.enqueue("x")
        model.chat("hi", **options)
    assert [getattr(request, "adapters", None) for request in engine.requests] == [_OWN, (_OWN[1],), ()]


# ---- the bundled model


@pytest.fixture(scope="module")
def files(smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("lora")
    return [str(lora.for_model(folder / f"{seed}", smollm2_path, strength=0.3, seed=seed)) for seed in range(2)]


@pytest.fixture(scope="module")
def plain(smollm2: Model) -> str:
    return smollm2.chat(_QUESTION, **_ASKED).text


@pytest.mark.model
def test_scale_0_gives_the_plain_text_and_scale_1_another(smollm2: Model, files: list[str], plain: str) -> None:
    first, again = (smollm2.chat(_QUESTION, lora=files[0], **_ASKED) for _ in range(2))
    assert first.text == again.text != plain
    assert smollm2.chat(_QUESTION, lora={"path": files[0], "scale": 0}, **_ASKED).text == plain


@pytest.mark.model
def test_plain_requests_beside_two_sets_stay_what_they_are(smollm2: Model, files: list[str], plain: str) -> None:
    alone = [smollm2.chat(_QUESTION, lora=path, **_ASKED).text for path in files]
    assert len({plain, *alone}) == 3
    typed: list[Any] = [files[0], [], files[1], None]
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(smollm2.chat, _QUESTION, lora=one, **_ASKED) for one in typed]
        assert [one.result().text for one in asked] == [alone[0], plain, alone[1], plain]


@pytest.mark.model
def test_file_that_does_not_fit_is_refused_and_the_model_goes_on(
    smollm2: Model, smollm2_path: Path, plain: str, tmp_path: Path
) -> None:
    unfit = lora.write(tmp_path / "x", [("blk.0.attn_q.weight.lora_a", (8, 1), [0.0] * 8)])
    paths: tuple[Path | str, ...] = (unfit, smollm2_path, "/none.gguf")
    for path in paths:
        error = ModelNotFoundError if path == "/none.gguf" else ModelLoadError
        with pytest.raises(error):
            smollm2.chat(_QUESTION, lora=path, **_ASKED)
    assert smollm2.chat(_QUESTION, **_ASKED).text == plain


@pytest.fixture
def adapted(smollm2: Model, files: list[str]) -> Iterator[Model]:
    with load("smollm2", lora=files[0], context_length=CONTEXT, max_sequences=4, kv_tokens=4096) as made:
        yield made


@pytest.mark.model
def test_loaded_with_adapters_shares_the_weights(smollm2: Model, adapted: Model, files: list[str], plain: str) -> None:
    assert adapted.base_engine is smollm2.engine
    assert adapted.chat(_QUESTION, **_ASKED).text == smollm2.chat(_QUESTION, lora=files[0], **_ASKED).text
    assert adapted.chat(_QUESTION, lora=[], **_ASKED).text == plain


@pytest.mark.model
def test_load_refuses_adapters_before_it_loads(smollm2_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="there is no LoRA adapter"):
        load("smollm2", lora="/none.gguf", context_length=300)
    with pytest.raises(ModelLoadError, match="no LoRA adapter but a model"):
        load("smollm2", lora=smollm2_path, context_length=300)


def test_adapter_given_as_a_model_is_refused(tmp_path: Path) -> None:
    path = lora.write(tmp_path / "x.gguf", [("blk.0.attn_q.weight.lora_a", (8, 1), [0.0] * 8)])
    with pytest.raises(ModelLoadError, match="is a LoRA adapter, not a model"):
        load(path)
