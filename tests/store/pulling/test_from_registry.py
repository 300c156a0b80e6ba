"""Whole pulls from the registry: what is there afterwards, and what is not."""

from __future__ import annotations

import json
import random
import shutil
import threading
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest

from nbllm.config import Config
from nbllm.core import Message, SamplingParams
from nbllm.core.adapters import Adapter
from nbllm.core.presets import Preset
from nbllm.errors import ModelNotFoundError, NbllmError, ParameterError
from nbllm.store.presets import shelf
from nbllm.store.pulling import PullError, PullProgress, download, pull
from tests.store import gguf_writer as g
from tests.store.pulling.disk import fill_disk
from tests.store.pulling.registry import Registry, digest

FREE = 1 << 40
MODEL = g.tiny_model() + random.Random(7).randbytes(300_000)
OTHER = g.tiny_model(general__size_label=g.text("2M")) + bytes(1000)
ADAPTER = g.gguf({"general.architecture": g.text("llama"), "general.type": g.text("adapter")})
GO = "{{ if .System }}{{ .System }}{{ end }}{{ .Prompt }}"


@pytest.fixture
def config(config: Config, registry: Registry) -> Config:
    return Config(models_dir=config.models_dir, registry=registry.address)


@pytest.fixture
def gemma(registry: Registry) -> Registry:
    registry.add("library/gemma9:1b", ("model", MODEL))
    return registry


def get(name: str, config: Config, **options: object) -> Path:
    return pull(name, config=config, memory_bytes=FREE, **options)  # type: ignore[arg-type]


def left(config: Config) -> list[str]:
    return sorted(path.relative_to(config.models_dir).as_posix() for path in config.models_dir.rglob("*"))


def blob(data: bytes, config: Config) -> Path:
    return config.models_dir / ".blobs" / digest(data).replace(":", "-")


def whole(config: Config, *blobs: bytes, preset: str = "gemma9%3A1b") -> list[str]:
    """What a pull leaves."""
    files = [".blobs", *(f".blobs/{blob(data, config).name}" for data in blobs)]
    return sorted([*files, ".presets", f".presets/{preset}.toml"])


def kept_bytes(config: Config) -> int:
    return sum(file.stat().st_size for file in config.models_dir.glob(".blobs/pulling-*/.*.part"))


# ---- a whole pull


def test_a_model_becomes_a_preset_of_its_name(gemma: Registry, config: Config) -> None:
    assert get("gemma9:1b", config) == blob(MODEL, config)
    assert blob(MODEL, config).read_bytes() == MODEL
    assert shelf.find("gemma9:1b", config) == Preset(name="gemma9:1b", base=digest(MODEL))
    assert left(config) == whole(config, MODEL)
    assert gemma.asked == ["/v2/library/gemma9/manifests/1b", f"/v2/library/gemma9/blobs/{digest(MODEL)}"]


def test_offline_mode_is_said(gemma: Registry, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PullError, match="HF_HUB_OFFLINE is set"):
        get("gemma9:1b", config)
    assert left(config) == []


def test_a_preset_resolves_to_its_weights(gemma: Registry, config: Config) -> None:
    get("gemma9:1b", config)
    found = shelf.find("gemma9:1b", config)
    assert found is not None
    assert Path(shelf.flattened(found, config).path) == blob(MODEL, config)


@pytest.mark.parametrize(
    ("name", "there", "called"),
    [
        ("gemma9", "library/gemma9:latest", "gemma9"),
        ("gemma9:latest", "library/gemma9:latest", "gemma9"),
        ("ollama:gemma:7b", "library/gemma:7b", "gemma:7b"),
        ("someone/model", "someone/model:latest", "someone/model"),
        ("OLLAMA:someone/model:v1.0", "someone/model:v1.0", "someone/model:v1.0"),
        ("library/gemma9:1b", "library/gemma9:1b", "gemma9:1b"),
        ("https://ollama.com/library/gemma9:1b", "library/gemma9:1b", "gemma9:1b"),
        ("ollama.com/someone/model", "someone/model:latest", "someone/model"),
    ],
)
def test_every_form_of_name(registry: Registry, config: Config, name: str, there: str, called: str) -> None:
    registry.add(there, ("model", MODEL))
    get(name, config)
    assert list(shelf.presets(config)) == [called]


def test_the_shipped_table_goes_first(registry: Registry, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PullError, match=r"cannot reach http://127\.0\.0\.1:9"):
        get("gemma:7b", config)
    assert registry.asked == []


def test_layers_become_what_a_preset_has(registry: Registry, config: Config) -> None:
    registry.add(
        "library/mario:latest",
        ("model", MODEL),
        ("system", b"You are Mario."),
        ("template", GO.encode()),
        ("params", json.dumps({"stop": ["<end>"], "temperature": 0.5, "num_ctx": 4096, "num_gpu": 1}).encode()),
        ("messages", json.dumps([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]).encode()),
        ("license", b"one"),
        ("license", "zw\u00f6lf".encode()),
        ("adapter", ADAPTER),
    )
    seen: list[PullProgress] = []
    get("mario", config, on_progress=seen.append)
    assert shelf.find("mario", config) == Preset(
        name="mario",
        base=digest(MODEL),
        system="You are Mario.",
        messages=(Message("user", "Hi"), Message("assistant", "Ho")),
        sampling=SamplingParams(temperature=0.5, stop=("<end>",)),
        go_template=GO,
        adapters=(Adapter(digest(ADAPTER)),),
        context_length=4096,
        licenses=("one", "zw\u00f6lf"),
        ignored={"num_gpu": "1"},
    )
    assert left(config) == whole(config, MODEL, ADAPTER, preset="mario")
    assert [note for note in seen[-1].notes if "template" in note]


def test_what_is_left_out_is_said(registry: Registry, config: Config) -> None:
    registry.add(
        "library/llava:latest",
        ("model", MODEL),
        ("projector", bytes(2_000_000)),
        ("dragon", b"x"),
        ("params", b'{"temperature": 0.5, "wings": 2, "stop": [""]}'),
    )
    seen: list[PullProgress] = []
    get("llava", config, on_progress=seen.append)
    assert seen[-1].notes == (
        "without its parameters wings, stop, which mean nothing here",
        "without its projector of 2 MB: pictures cannot be sent yet",
        "without its layers of the kind dragon, which mean nothing here",
    )
    assert left(config) == whole(config, MODEL, preset="llava")
    assert not registry.asked_for(bytes(2_000_000))


def test_progress_goes_from_nothing_to_all(gemma: Registry, config: Config) -> None:
    seen: list[PullProgress] = []
    get("gemma9:1b", config, on_progress=seen.append)
    sha256 = digest(MODEL).removeprefix("sha256:")
    assert seen[0] == PullProgress(status="resolving")
    assert seen[-1] == PullProgress(status="done", file="gemma9:1b", sha256=sha256, name="gemma9:1b")
    done = [progress.done for progress in seen if progress.status == "downloading"]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, len(MODEL))
    assert {(one.file, one.sha256, one.total) for one in seen[1:-1]} == {("gemma9:1b", sha256, len(MODEL))}


def test_what_is_here_is_not_got_again(gemma: Registry, config: Config) -> None:
    get("gemma9:1b", config)
    get("gemma9:1b", config)
    gemma.add("library/gemma9:latest", ("model", MODEL))
    get("gemma9", config)
    assert len(gemma.asked_for(MODEL)) == 1
    assert list(shelf.presets(config)) == ["gemma9", "gemma9:1b"]


def test_an_update_removes_the_weights_that_nothing_names(gemma: Registry, config: Config) -> None:
    get("gemma9:1b", config)
    gemma.add("library/gemma9:1b", ("model", OTHER))
    get("gemma9:1b", config)
    assert left(config) == whole(config, OTHER)


def test_an_update_keeps_the_weights_of_another_preset(gemma: Registry, config: Config) -> None:
    get("gemma9:1b", config)
    shelf.save(Preset(name="mine", base=digest(MODEL), system="Be kind."), config)
    gemma.add("library/gemma9:1b", ("model", OTHER))
    get("gemma9:1b", config)
    assert blob(MODEL, config).exists()


def test_an_update_keeps_what_a_damaged_preset_may_name(gemma: Registry, config: Config) -> None:
    get("gemma9:1b", config)
    (config.models_dir / ".presets" / "odd.toml").write_text("from = ")
    gemma.add("library/gemma9:1b", ("model", OTHER))
    get("gemma9:1b", config)
    assert blob(MODEL, config).exists()


def test_what_ollama_has_is_not_got_again(
    gemma: Registry, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tmp_path / "ollama" / "manifests" / "registry.ollama.ai" / "library" / "gemma9" / "1b"
    g.write(manifest, gemma.manifests["library/gemma9:1b"])
    there = g.write(tmp_path / "ollama" / "blobs" / digest(MODEL).replace(":", "-"), MODEL)
    monkeypatch.setattr("nbllm.config.stores.store_folders", lambda store: (tmp_path / store,))
    seen: list[PullProgress] = []
    assert get("gemma9:1b", config, on_progress=seen.append) == there
    assert (seen[-1].status, seen[-1].name) == ("done", "gemma9:1b")
    assert gemma.asked == []


# ---- cuts


@pytest.mark.parametrize("seed", range(3))
def test_twenty_cuts_in_one_pull(gemma: Registry, config: Config, seed: int) -> None:
    bounds = sorted(random.Random(seed).sample(range(1, len(MODEL)), 20))
    gemma.cuts = deque([10_000, *(stop - start for start, stop in zip([0, *bounds], bounds, strict=False))])
    get("gemma9:1b", config)
    assert blob(MODEL, config).read_bytes() == MODEL
    assert gemma.asked_for(MODEL) == [f"bytes={start}-{len(MODEL) - 1}" for start in (0, *bounds)]
    assert left(config) == whole(config, MODEL)


def test_small_layers_and_the_manifest_are_asked_for_again(registry: Registry, config: Config) -> None:
    registry.add("library/m:latest", ("model", MODEL), ("system", b"Be kind."))
    registry.cuts = deque([20, 50, 10_000, 3, 4])
    get("m", config)
    found = shelf.find("m", config)
    assert found is not None
    assert found.system == "Be kind."


def test_twenty_interrupts_at_random_bytes(gemma: Registry, config: Config) -> None:
    chance = random.Random(3)
    for number in range(20):
        stop = int(len(MODEL) * (number + chance.random()) / 20)

        def interrupt(progress: PullProgress, stop: int = stop) -> None:
            if progress.done >= stop and progress.status == "downloading":
                raise KeyboardInterrupt

        gemma.cuts = deque([10_000, max(1, stop - kept_bytes(config))])
        with pytest.raises(KeyboardInterrupt):
            get("gemma9:1b", config, on_progress=interrupt)
        assert not blob(MODEL, config).exists()
        assert shelf.presets(config) == {}
        assert kept_bytes(config) >= stop
    gemma.cuts.clear()
    get("gemma9:1b", config)
    assert blob(MODEL, config).read_bytes() == MODEL
    assert left(config) == whole(config, MODEL)


def test_a_server_without_ranges_begins_again(gemma: Registry, config: Config) -> None:
    gemma.knows_ranges = False
    gemma.cuts = deque([10_000, 100_000, 50_000])
    get("gemma9:1b", config)
    assert blob(MODEL, config).read_bytes() == MODEL


def test_damage_is_found_and_not_kept(gemma: Registry, config: Config) -> None:
    gemma.blobs[digest(MODEL)] = MODEL[:-1] + b"x"
    with pytest.raises(PullError, match=r"arrived damaged: its SHA-256 is another; pull again"):
        get("gemma9:1b", config)
    assert left(config) == []


def test_damage_of_a_small_layer_is_found(registry: Registry, config: Config) -> None:
    registry.add("library/m:latest", ("model", MODEL), ("system", b"Be kind."))
    registry.blobs[digest(b"Be kind.")] = b"Be evil."
    with pytest.raises(PullError, match="m: its system arrived damaged"):
        get("m", config)
    assert left(config) == []
    assert not registry.asked_for(MODEL)


# ---- a full disk


def test_too_small_a_disk_is_told_before_anything_is_got(
    gemma: Registry, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=300_000))
    with pytest.raises(PullError, match=r"0\.3 MB are needed and 0\.3 MB are free in .*NBLLM_MODELS_DIR"):
        get("gemma9:1b", config)
    assert left(config) == []
    assert not gemma.asked_for(MODEL)


@pytest.mark.parametrize("room", [0, 1, 100_000, len(MODEL) + 5])
def test_a_full_disk_leaves_nothing_behind(
    registry: Registry, config: Config, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    registry.add("library/m:latest", ("model", MODEL), ("adapter", ADAPTER))
    fill_disk(monkeypatch, room)
    with pytest.raises(PullError, match=r"is full, and nothing was kept: make room"):
        get("m", config)
    assert left(config) == []


def test_a_preset_that_cannot_be_kept_leaves_no_weights(
    gemma: Registry, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(preset: Preset, config: Config) -> None:
        raise ParameterError("name", "is wrong")

    monkeypatch.setattr(shelf, "save", refused)
    with pytest.raises(ParameterError):
        get("gemma9:1b", config)
    assert left(config) == []


def test_a_preset_that_cannot_be_kept_leaves_what_was_there(
    gemma: Registry, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    g.write(blob(MODEL, config), MODEL)
    monkeypatch.setattr(shelf, "save", lambda preset, config: (_ for _ in ()).throw(ParameterError("name", "is wrong")))
    with pytest.raises(ParameterError):
        get("gemma9:1b", config)
    assert blob(MODEL, config).read_bytes() == MODEL


# ---- two at once


@pytest.mark.parametrize("names", [("gemma9:1b", "gemma9:1b"), ("gemma9:1b", "twin")], ids=["one", "of one blob"])
def test_two_pulls_get_a_blob_once(gemma: Registry, config: Config, names: tuple[str, str]) -> None:
    gemma.add("library/twin:latest", ("adapter", ADAPTER), ("model", MODEL))
    gemma.released.clear()
    waits, paths = threading.Event(), []

    def watch(progress: PullProgress) -> None:
        if progress.status == "waiting":
            waits.set()
            gemma.released.set()

    threads = [
        threading.Thread(target=lambda name=name: paths.append(get(name, config, on_progress=watch))) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert waits.is_set()
    assert paths == [blob(MODEL, config)] * 2
    assert len(gemma.asked_for(MODEL)) == 1
    assert sorted(shelf.presets(config)) == sorted(set(names))
    assert not list(config.models_dir.glob(".blobs/pulling-*"))


def test_pulls_of_different_models_do_not_wait(gemma: Registry, config: Config) -> None:
    gemma.add("library/other:latest", ("model", OTHER))
    seen: list[PullProgress] = []

    def then(progress: PullProgress) -> None:
        if progress.status == "downloading" and not seen:
            get("other", config, on_progress=seen.append)

    get("gemma9:1b", config, on_progress=then)
    assert [progress.status for progress in seen if progress.status == "waiting"] == []
    assert sorted(shelf.presets(config)) == ["gemma9:1b", "other"]


# ---- what llama.cpp cannot load


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (g.tiny_model(general__architecture=g.text("gptoss")), "the architecture 'gptoss' is unknown to it"),
        (g.tiny_model(llama__vision__block_count=g.u32(27)), "its vision tensors are in the same file"),
        (g.tiny_model(llama__audio__block_count=g.u32(27)), "its audio tensors are in the same file"),
        (g.tiny_model(general__type=g.text("mmproj")), "its file is the projector of a multimodal model"),
        (g.tiny_model(split__count=g.u32(3)), "its file is a part of a split model"),
        (g.tiny_model()[:-50], "its file truncated"),
        (g.tiny_model()[:300], "its file "),
        (b"GGUF", "its file "),
        (b"PK\3\4" + bytes(1000), "it is not a GGUF"),
        (g.gguf({"general.architecture": g.text("llama")}), "its file has no weights"),
    ],
)
def test_what_cannot_be_loaded_is_refused_and_not_kept(
    registry: Registry, config: Config, data: bytes, says: str
) -> None:
    registry.add("library/m:latest", ("adapter", ADAPTER), ("model", data))
    with pytest.raises(PullError, match=r"llama\.cpp cannot load m: ") as refused:
        get("m", config)
    assert says in str(refused.value)
    assert "huggingface.co" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert str(config.models_dir) not in str(refused.value)
    assert left(config) == []


@pytest.mark.parametrize(
    "start",
    [
        g.tiny_model(general__architecture=g.text("gptoss")),
        g.tiny_model(llama__vision__block_count=g.u32(27)),
        bytes(100),
    ],
    ids=["architecture", "vision", "no gguf"],
)
def test_a_large_file_is_refused_at_its_beginning(
    registry: Registry, config: Config, start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "GLANCE_BYTES", 64 << 10)
    registry.add("library/m:latest", ("model", start + bytes(8_000_000)))
    seen: list[PullProgress] = []
    with pytest.raises(PullError, match=r"llama\.cpp cannot load m: "):
        get("m", config, on_progress=seen.append)
    assert max(progress.done for progress in seen) < 4_000_000
    assert left(config) == []


def test_a_beginning_that_says_too_little_is_no_reason(
    gemma: Registry, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "GLANCE_BYTES", 8)
    gemma.cuts = deque([10_000, 30])
    get("gemma9:1b", config)
    assert blob(MODEL, config).read_bytes() == MODEL


def test_a_blob_that_is_here_and_unusable_is_refused_and_stays(registry: Registry, config: Config) -> None:
    data = g.tiny_model(general__architecture=g.text("gptoss"))
    registry.add("library/m:latest", ("model", data))
    g.write(blob(data, config), data)
    with pytest.raises(PullError, match="unknown to it"):
        get("m", config)
    assert blob(data, config).exists()


@pytest.mark.parametrize("data", [MODEL, b"ggla" + bytes(100), g.gguf({})], ids=["model", "not a gguf", "empty"])
def test_an_adapter_that_is_none_is_refused(registry: Registry, config: Config, data: bytes) -> None:
    registry.add("library/m:latest", ("model", OTHER), ("adapter", data))
    with pytest.raises(PullError, match=r"llama\.cpp cannot load m"):
        get("m", config)
    assert left(config) == []


# ---- names


def test_a_name_that_nobody_has(registry: Registry, config: Config) -> None:
    with pytest.raises(
        ModelNotFoundError, match=r"no model 'llama3.2:1' to pull: the closest names: llama3.2:1b.*has no such"
    ):
        get("llama3.2:1", config)
    assert registry.asked == ["/v2/library/llama3.2/manifests/1"]
    assert left(config) == []


@pytest.mark.parametrize("name", ["ollama:../m", "ollama:a/b/c/d", "ollama:", "ollama:m:", "ollama:m:..", "ollama:m?x"])
def test_a_name_that_the_registry_cannot_have_asks_nobody(registry: Registry, config: Config, name: str) -> None:
    with pytest.raises(ParameterError, match="is not a model of Ollama's registry; write for example"):
        get(name, config)
    assert registry.asked == []


def test_a_preset_of_ones_own_stays(gemma: Registry, config: Config) -> None:
    mine = Preset(name="gemma9:1b", base="other", system="Mine.")
    shelf.save(mine, config)
    with pytest.raises(PullError, match="there is a preset gemma9:1b that you made of other: remove it"):
        get("gemma9:1b", config)
    assert shelf.find("gemma9:1b", config) == mine
    assert gemma.asked == []


@pytest.mark.parametrize("name", ["taken", "default", "ollama:smollm2"])
def test_a_name_that_means_something_else_asks_nobody(registry: Registry, config: Config, name: str) -> None:
    g.write(config.models_dir / "taken.gguf", MODEL)
    with pytest.raises(NbllmError, match="is another model's name here"):
        get(name, config)
    assert registry.asked == []


@pytest.mark.parametrize(
    "settings", [{"aliases": {"m": "x"}}, {"endpoints": {"m": {"base_url": "http://127.0.0.1:9"}}}]
)
def test_a_name_of_the_settings_asks_nobody(registry: Registry, config: Config, settings: dict[str, object]) -> None:
    config = Config(models_dir=config.models_dir, registry=registry.address, **settings)  # type: ignore[arg-type]
    with pytest.raises(PullError, match="is another model's name here"):
        get("m", config)
    assert registry.asked == []
