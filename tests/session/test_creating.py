from __future__ import annotations

import os
from pathlib import Path

import pytest

from nbllm.config import Config
from nbllm.core import SamplingParams
from nbllm.errors import InvalidRequestError, ModelLoadError, ModelNotFoundError, NbllmError, ParameterError
from nbllm.session.creating import MAX_FILE_BYTES, from_file, from_modelfile, from_options
from nbllm.store.presets import shelf
from tests import lora
from tests.store.gguf_writer import text, tiny_model, write

MODELFILE = 'FROM m\nPARAMETER temperature 0.2\nSYSTEM """\nYou are Mario.\n"""\n'
TOML = 'from = "m"\nsystem = "You are Mario."\n[parameters]\ntemperature = 0.2\n'


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(models_dir=tmp_path / "models")


@pytest.fixture(autouse=True)
def model(config: Config) -> Path:
    return write(config.models_dir / "m.gguf", tiny_model())


@pytest.mark.parametrize(
    ("file", "content"),
    [
        pytest.param("Modelfile", MODELFILE, id="Modelfile"),
        pytest.param("mario.TOML", TOML, id="TOML"),
        pytest.param("windows", MODELFILE.replace("\n", "\r\n"), id="Modelfile of an editor on Windows"),
        pytest.param("with-mark.toml", f"\ufeff{TOML}", id="TOML with a mark"),
        pytest.param("marked", f"\ufeff{MODELFILE}", id="Modelfile with a mark"),
    ],
)
def test_file_becomes_a_preset(tmp_path: Path, config: Config, file: str, content: str) -> None:
    path = write(tmp_path / "files" / file, content.encode())
    made = from_file("mario:latest", path, config)
    assert made.text == "mario is made of m"
    kept = shelf.find("mario", config)
    assert kept is not None
    assert (kept.base, (kept.system or "").strip(), kept.sampling.temperature) == ("m", "You are Mario.", 0.2)


def test_text_of_powershell_is_read(tmp_path: Path, config: Config) -> None:
    path = write(tmp_path / "Modelfile", "FROM m\r\nSYSTEM Señor Mario.\r\n".encode("utf-16"))
    assert from_file("mario", path, config).preset.system == "Señor Mario."


def test_options_are_in_any_case(tmp_path: Path, config: Config) -> None:
    made = from_options("mario", ["FROM=m", "System=Be kind.", "TEMPERATURE=0.2"], tmp_path, config).preset
    assert (made.base, made.system, made.sampling.temperature) == ("m", "Be kind.", 0.2)


def test_paths_in_a_file_start_at_its_folder(tmp_path: Path, config: Config) -> None:
    weights = write(tmp_path / "files/own.gguf", tiny_model())
    adapter = lora.for_model(tmp_path / "files/lora/a.gguf", weights, names=["attn_q"])
    path = write(tmp_path / "files/Modelfile", b"FROM ./own.gguf\nADAPTER lora/a.gguf\n")
    made = from_file("mario", path, config).preset
    assert (made.base, [one.path for one in made.adapters]) == (str(weights), [str(adapter)])


def test_what_cannot_be_loaded_is_refused(config: Config, tmp_path: Path) -> None:
    write(tmp_path / "text.gguf", b"no model")
    with pytest.raises(ModelLoadError, match=r"text\.gguf cannot be loaded"):
        from_options("brief", ["from=./text.gguf"], tmp_path, config)
    assert shelf.presets(config) == {}


def test_adapter_that_does_not_fit_is_refused(config: Config, tmp_path: Path, model: Path) -> None:
    other = write(tmp_path / "other.gguf", tiny_model(general__architecture=text("qwen2")))
    lora.for_model(tmp_path / "a.gguf", model, names=["attn_q"])
    with pytest.raises(ModelLoadError, match="made for a model of the family llama, and this one is qwen2"):
        from_options("brief", [f"from={other}", "adapter=./a.gguf"], tmp_path, config)
    with pytest.raises(ModelLoadError, match="is no LoRA adapter but a model"):
        from_options("brief", ["from=m", "adapter=./other.gguf"], tmp_path, config)
    assert shelf.presets(config) == {}


@pytest.mark.parametrize(
    ("template", "says"),
    [
        pytest.param("{% for m in messages %}\n{{ m.role", "is no Jinja that can be run at line 2", id="broken"),
        pytest.param("Just answer.", "leaves out what the user says", id="text"),
        pytest.param("{{ prompt }}", "leaves out what the user says", id="another variable"),
    ],
)
def test_template_that_could_never_answer_is_refused(config: Config, tmp_path: Path, template: str, says: str) -> None:
    with pytest.raises(ParameterError, match=f"template: {says}"):
        from_options("brief", ["from=m", f"template={template}"], tmp_path, config)
    with pytest.raises(ParameterError, match=f"template: {says}"):
        from_modelfile("brief", f'FROM m\nTEMPLATE """{template}"""\n', tmp_path, config)
    assert shelf.presets(config) == {}


def test_options_become_a_preset(config: Config, tmp_path: Path, model: Path) -> None:
    adapter = lora.for_model(tmp_path / "a.gguf", model, names=["attn_q"])
    words = [
        *("from=m", "system=Be brief: x=1.", "template={{ messages[0].content }}", "license=MIT", f"adapter={adapter}"),
        *("temperature=0.2", "num_predict=30", "num_ctx=1024", "stop=a", "stop=b=c", "num_gpu=1"),
    ]
    made = from_options("brief", words, tmp_path, config)
    assert made.text == "brief is made of m\nnum_gpu has no effect here"
    preset = made.preset
    assert preset.sampling == SamplingParams(temperature=0.2, max_tokens=30, stop=("a", "b=c"))
    assert (preset.system, preset.template) == ("Be brief: x=1.", "{{ messages[0].content }}")
    assert (preset.licenses, preset.context_length, preset.adapters[0].path) == (("MIT",), 1024, str(adapter))
    kept = shelf.find("brief", config)
    assert kept is not None
    assert (kept.system, kept.sampling, kept.adapters) == (preset.system, preset.sampling, preset.adapters)


def test_template_of_ollama_is_kept_and_said_to_be_unused(config: Config, tmp_path: Path) -> None:
    made = from_modelfile("mario", "FROM m\nTEMPLATE {{ .Prompt }}\n", tmp_path, config)
    assert made.preset.go_template == "{{ .Prompt }}"
    assert "Ollama's language" in made.text
    assert "Ollama's language" in from_options("luigi", ["from=m", "template={{ .Prompt }}"], tmp_path, config).text


def test_create_again_takes_the_place_of_the_first(config: Config, tmp_path: Path) -> None:
    from_options("brief", ["from=m", "temperature=0.2"], tmp_path, config)
    made = from_options("Brief", ["from=m"], tmp_path, config)
    assert made.text == "Brief is made of m, in place of the preset that had this name"
    assert [preset.sampling for preset in shelf.presets(config).values()] == [SamplingParams()]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(["temperature=0.2"], "from=MODEL is missing", id="no base"),
        pytest.param(["from=m", "brief"], "NAME=VALUE", id="no value"),
        pytest.param(["from=m", "=1"], "NAME=VALUE", id="no name"),
        pytest.param(["from=m", "sytem=Be brief."], "did you mean system?", id="misspelt text"),
        pytest.param(["from=m", "temprature=1"], "did you mean temperature?", id="misspelt parameter"),
        pytest.param(["from=m", "temperature=hot"], "must be a number", id="no number"),
        pytest.param(["from=m", "temperature=1", "temperature=2"], "twice", id="twice"),
        pytest.param(["from=m", "from=m"], "twice", id="two bases"),
        pytest.param(["from=nothing"], "no model 'nothing'", id="unknown base"),
        pytest.param(["from=./nothing.gguf"], "there is no file", id="missing file"),
        pytest.param([f"from=./{'x' * 300}.gguf"], "there is no file", id="name that no file can have"),
        pytest.param(["from=./"], "is a folder: give the path of a model", id="folder"),
        pytest.param(["from="], "empty", id="empty base"),
        pytest.param(["from=m", "adapter=./"], "is a folder: give the path of a LoRA", id="folder of adapters"),
        pytest.param(["from=m", "adapter=./nothing.gguf"], "there is no file", id="missing adapter"),
        pytest.param(["from=new"], "new", id="made of itself"),
    ],
)
def test_wrong_option_is_a_line_and_makes_nothing(config: Config, tmp_path: Path, words: list[str], says: str) -> None:
    with pytest.raises(NbllmError) as caught:
        from_options("new", words, tmp_path, config)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert shelf.presets(config) == {}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"FROM m\nSYTEM hello\n", "line 2", id="unknown instruction"),
        pytest.param(b"FROM m\n\nPARAMETER heat 1\n", "line 3", id="unknown parameter"),
        pytest.param(b"SYSTEM hello\n", "FROM", id="no base"),
        pytest.param(b"", "FROM", id="empty"),
        pytest.param(b"FROM m\xff", "not UTF-8", id="not text"),
        pytest.param(b"#" * (MAX_FILE_BYTES + 1), "too large", id="too large"),
    ],
)
def test_wrong_file_is_a_line(config: Config, tmp_path: Path, content: bytes, says: str) -> None:
    path = write(tmp_path / "Modelfile", content)
    with pytest.raises(InvalidRequestError) as caught:
        from_file("mario", path, config)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert shelf.presets(config) == {}


def test_what_is_no_file_is_a_line(config: Config, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path, tmp_path / "nothing", fifo, Path("a\0b"), Path("~nobody-here/Modelfile")):
        with pytest.raises(InvalidRequestError, match="cannot be read"):
            from_file("mario", path, config)


@pytest.mark.parametrize("name", ["", "../up", "a//b", "m", "smollm2", "default", "hf:org/repo", "a b", "x" * 300])
def test_name_that_cannot_be_one_is_refused(config: Config, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequestError):
        from_options(name, ["from=m"], tmp_path, config)
    assert shelf.presets(config) == {}


def test_base_that_is_gone_since_is_said(config: Config, tmp_path: Path, model: Path) -> None:
    model.unlink()
    with pytest.raises(ModelNotFoundError, match="mario is made of m"):
        from_modelfile("mario", MODELFILE, tmp_path, config)
