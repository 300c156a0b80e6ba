from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from nbllm.config import Config
from nbllm.core import Adapter, Message, Preset, SamplingParams
from nbllm.errors import InvalidRequestError, ModelLoadError, ModelNotFoundError
from nbllm.store.blobs import BlobWriter
from nbllm.store.presets.shelf import flattened, save
from tests.store import gguf_writer as g
from tests.store.presets.conftest import Put


def blob(data: bytes, config: Config) -> str:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    with BlobWriter(digest, config) as writer:
        writer.write(data)
        writer.finish()
    return digest


def test_flattened_by_name(config: Config, tiny: Path) -> None:
    preset = Preset(name="a", base="Tiny")

    resolved = flattened(preset, config)

    assert (resolved.preset, resolved.path) == (preset, tiny)


def test_flattened_by_path(config: Config, tiny: Path) -> None:
    assert flattened(Preset(name="a", base=str(tiny)), config).path == tiny


def test_flattened_by_a_later_part_of_a_split_model(config: Config, tmp_path: Path) -> None:
    first, second = (g.write(tmp_path / f"b-0000{part}-of-00002.gguf", g.tiny_model()) for part in (1, 2))

    assert flattened(Preset(name="a", base=str(second)), config).path == first


def test_flattened_by_alias(config: Config, tmp_path: Path, tiny: Path) -> None:
    other = g.write(tmp_path / "other.gguf", g.tiny_model())
    config = replace(config, aliases={"mine": str(other), "small": "tiny"}, default_model="tiny")

    found = {name: flattened(Preset(name="a", base=name), config).path for name in ("mine", "small", "default")}

    assert found == {"mine": other, "small": tiny, "default": tiny}


def test_flattened_blobs_become_paths(config: Config) -> None:
    base, adapter = blob(g.tiny_model(), config), blob(b"lora", config)

    resolved = flattened(Preset(name="a", base=base, adapters=(Adapter(adapter, 0.5),)), config)

    assert resolved.path.read_bytes() == g.tiny_model()
    (found,) = resolved.preset.adapters
    assert (Path(found.path).read_bytes(), found.scale) == (b"lora", 0.5)


def test_flattened_merges_presets(config: Config, tiny: Path, tmp_path: Path) -> None:
    adapters = [Adapter(str(g.write(tmp_path / name, b"lora"))) for name in ("a", "b")]
    below = Preset(
        name="below",
        base="tiny",
        system="Be kind.",
        messages=(Message("user", "Hi"),),
        sampling=SamplingParams(temperature=0.5, top_k=3, stop=("a",)),
        template="{{ messages }}",
        adapters=(adapters[0],),
        context_length=64,
        threads=2,
        licenses=("MIT", "A"),
        ignored={"num_gpu": "1", "numa": "1"},
    )
    save(below, config)
    own = Preset(
        name="own",
        base="below:latest",
        system="",
        sampling=SamplingParams(temperature=0.0),
        adapters=(adapters[1],),
        threads=1,
        licenses=("B", "A"),
        ignored={"num_gpu": "2"},
    )

    resolved = flattened(own, config)

    assert resolved.path == tiny
    assert resolved.preset == Preset(
        name="own",
        base="tiny",
        system="",
        messages=(Message("user", "Hi"),),
        sampling=SamplingParams(temperature=0.0, top_k=3, stop=("a",)),
        template="{{ messages }}",
        adapters=tuple(adapters),
        context_length=64,
        threads=1,
        licenses=("MIT", "A", "B"),
        ignored={"num_gpu": "2", "numa": "1"},
    )


@pytest.mark.parametrize("own", [{"template": "own"}, {"go_template": "own"}], ids=["jinja", "go"])
def test_flattened_own_template_replaces_either_kind(own: dict[str, str], config: Config, tiny: Path) -> None:
    save(Preset(name="jinja", base="tiny", template="{{ a }}"), config)
    save(Preset(name="go", base="tiny", go_template="{{ .A }}"), config)

    for base in ("jinja", "go"):
        preset = flattened(Preset(name="a", base=base, **own), config).preset  # type: ignore[arg-type]
        assert {"template": preset.template, "go_template": preset.go_template} == {
            "template": None,
            "go_template": None,
            **own,
        }


def test_flattened_messages_and_stops_of_its_own_replace_the_bases(config: Config, tiny: Path) -> None:
    save(Preset(name="b", base="tiny", messages=(Message("user", "1"),), sampling=SamplingParams(stop=("1",))), config)
    own = Preset(name="a", base="b", messages=(Message("user", "2"),), sampling=SamplingParams(stop=("2",)))

    preset = flattened(own, config).preset

    assert (preset.messages, preset.sampling.stop) == (own.messages, ("2",))


def test_flattened_refuses_loops(config: Config, tiny: Path) -> None:
    for name, base in (("a", "b"), ("b", "c"), ("c", "a:latest")):
        save(Preset(name=name, base=base), config)

    with pytest.raises(InvalidRequestError, match="made of each other: a <- b <- c <- a; give one"):
        flattened(Preset(name="a", base="b"), config)
    save(Preset(name="self", base="Self"), config)
    with pytest.raises(InvalidRequestError, match="made of each other: Self <- self"):
        flattened(Preset(name="Self", base="self"), config)


@pytest.mark.parametrize(
    ("base", "match"),
    [
        ("tyni", "^a is made of tyni: no model 'tyni'; the closest names: tiny$"),
        ("/no/such.gguf", "^a is made of /no/such.gguf, which is not there; put it back"),
        ("/", "^a is made of /, which is not there"),
        ("sha256:" + "0" * 64, "^a is made of sha256:0+, which is not there; upload it again"),
        ("../../etc/passwd", "^a is made of ../../etc/passwd: no model"),
    ],
    ids=["name", "path", "folder", "blob", "traversal"],
)
def test_flattened_base_that_is_not_there(base: str, match: str, config: Config, tiny: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=match):
        flattened(Preset(name="a", base=base), config)


def test_flattened_names_the_preset_whose_base_is_not_there(config: Config, tiny: Path) -> None:
    save(Preset(name="b", base="gone"), config)

    with pytest.raises(ModelNotFoundError, match=r"^b is made of gone: "):
        flattened(Preset(name="a", base="b"), config)


def test_flattened_damaged_preset_below(config: Config, put: Put, tiny: Path) -> None:
    put("b.toml", "from = 3")

    with pytest.raises(ModelLoadError, match=r"^a is made of the preset b, whose file from: must be a text"):
        flattened(Preset(name="a", base="b"), config)


def test_flattened_base_on_another_server(config: Config, tiny: Path) -> None:
    from nbllm.config.endpoints import Endpoint

    config = replace(config, endpoints={"far": Endpoint(base_url="http://127.0.0.1:1/v1", model="m")})

    with pytest.raises(InvalidRequestError, match="far is on another server"):
        flattened(Preset(name="a", base="far"), config)


@pytest.mark.parametrize("path", ["/no/such.gguf", "sha256:" + "0" * 64, "/"], ids=["file", "blob", "folder"])
def test_flattened_adapter_that_is_not_there(path: str, config: Config, tiny: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=f"^the adapter {path} of a is not there"):
        flattened(Preset(name="a", base="tiny", adapters=(Adapter(path),)), config)
