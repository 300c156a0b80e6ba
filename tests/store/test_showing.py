from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nbllm.config import Config
from nbllm.config.endpoints import Endpoint
from nbllm.core import Message, SamplingParams
from nbllm.core.adapters import Adapter
from nbllm.core.presets import Preset
from nbllm.errors import InvalidRequestError, ModelNotFoundError
from nbllm.store.presets import modelfile, shelf
from nbllm.store.showing import facts, facts_text, modelfile_text
from tests.store.gguf_writer import F32, gguf, number, text, tiny_model, u32, write


@pytest.fixture
def model(models_dir: Path) -> Path:
    data = tiny_model(
        general__license=text("apache-2.0"),
        general__sampling__temp=number(F32, 0.5),
        general__parameter_count=u32(1_500_000_000),
    )
    return write(models_dir / "m.gguf", data)


@pytest.fixture
def mario(model: Path, models_dir: Path, config: Config) -> Preset:
    values = {"general.architecture": text("llama"), "general.type": text("adapter"), "adapter.type": text("lora")}
    adapter = write(models_dir.parent / "lora.gguf", gguf(values))
    preset = Preset(
        name="mario",
        base="m",
        system="You are Mario.\nIt is you.",
        messages=(Message("user", "Hi"), Message("assistant", "It's me")),
        sampling=SamplingParams(temperature=0.2, stop=("Peach", "\n")),
        template="{{ messages }}",
        adapters=(Adapter(str(adapter), 0.5),),
        context_length=1024,
        threads=2,
        licenses=("\nCC-BY 4.0\nand more",),
        ignored={"num_gpu": "1"},
    )
    shelf.save(preset, config)
    return preset


def test_facts_of_a_model(model: Path, config: Config) -> None:
    assert facts("M.gguf", config) == {
        "name": "m",
        "architecture": "llama",
        "weights": "1.5 billion",
        "quantization": "Q4_K_M",
        "size": "0 MB",
        "context": "2,048 tokens",
        "licence": "apache-2.0",
        "template": "the model's own, 50 characters of Jinja",
        "parameters": "temp 0.5",
        "source": "the models folder",
        "path": str(model),
    }


@pytest.mark.usefixtures("mario")
def test_facts_of_a_preset(models_dir: Path, config: Config) -> None:
    said = facts("Mario:latest", config)
    assert said == {
        "name": "mario",
        "made of": "m",
        "architecture": "llama",
        "weights": "1.5 billion",
        "quantization": "Q4_K_M",
        "size": "0 MB",
        "context": "1,024 tokens of the 2,048 tokens that it was trained for",
        "threads": "2",
        "licence": "CC-BY 4.0",
        "template": "the preset's, 14 characters of Jinja",
        "parameters": r'temperature 0.2, stop "Peach" "\n"',
        "without effect": "num_gpu 1",
        "adapters": f"{models_dir.parent / 'lora.gguf'} x 0.5",
        "examples": "2 messages go before each chat",
        "source": "a preset",
        "path": str(models_dir / ".presets/mario.toml"),
        "system": "You are Mario.\nIt is you.",
    }
    assert facts_text(said).endswith("\n\nsystem:\n  You are Mario.\n  It is you.")


@pytest.mark.usefixtures("mario")
def test_preset_of_a_preset_has_what_both_say(config: Config) -> None:
    shelf.save(Preset(name="luigi", base="mario", system="You are Luigi."), config)
    said = facts("luigi", config)
    assert (said["made of"], said["system"]) == ("mario", "You are Luigi.")
    assert said["parameters"].startswith("temperature 0.2")


@pytest.mark.usefixtures("model")
def test_template_of_ollama_is_said_to_be_unused(config: Config) -> None:
    shelf.save(Preset(name="mario", base="m", go_template="{{ .Prompt }}"), config)
    assert facts("mario", config)["template"].endswith("in Ollama's language, which is not used")


def test_damaged_model_says_what_is_wrong(models_dir: Path, config: Config) -> None:
    write(models_dir / "bad.gguf", b"<html>")
    said = facts("bad", config)
    assert "a web page" in said["problem"]
    assert said["source"] == "the models folder"


def test_path_alias_and_endpoint(model: Path, config: Config, tmp_path: Path) -> None:
    endpoint = Endpoint(base_url="http://127.0.0.1:9/v1", model="big")
    config = replace(config, aliases={"chat": "m"}, endpoints={"far": endpoint})
    elsewhere = write(tmp_path / "else.gguf", tiny_model())
    assert facts("chat", config) == facts(str(model), config)
    assert "source" not in facts(str(elsewhere), config)
    assert facts("far", config) == {
        "name": "far",
        "model": "big",
        "source": "another server, http://127.0.0.1:9/v1",
    }
    with pytest.raises(InvalidRequestError, match="another server"):
        modelfile_text("far", config)


def test_modelfile_of_a_preset_makes_it_again(mario: Preset, config: Config) -> None:
    again = modelfile.parse(modelfile_text("mario", config), name="mario", folder=Path.cwd())
    assert again == mario


@pytest.mark.usefixtures("model")
def test_modelfile_of_a_model_names_it(config: Config, tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "else.gguf", tiny_model())
    for name, base in (("m.gguf", "m"), (str(elsewhere), str(elsewhere))):
        assert modelfile.parse(modelfile_text(name, config), name="x", folder=Path.cwd()).base == base


@pytest.mark.parametrize("tell", [facts, modelfile_text], ids=["facts", "modelfile"])
def test_unknown_model_is_a_line(config: Config, tell: object) -> None:
    assert callable(tell)
    with pytest.raises(ModelNotFoundError, match="no model 'nothing'"):
        tell("nothing", config)


def test_bundled_model_has_its_licence(config: Config, smollm2_path: Path) -> None:
    said = facts("smollm2", config)
    assert (said["licence"], said["weights"], said["context"]) == ("apache-2.0", "135 million", "8,192 tokens")
    assert said["path"].endswith(smollm2_path.name)
