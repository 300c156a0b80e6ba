"""Models that `%llm tune` has chosen something for: runners load that, and lists tell of the model itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbllm.config import Config
from nbllm.core import Preset
from nbllm.errors import ModelLoadError
from nbllm.runner.spec import LoadOptions
from nbllm.server.naming import ModelNames, Target
from nbllm.server.router import Router
from nbllm.server.wording import for_clients
from nbllm.session.tuning.kept import Tuned, forget, tuned
from nbllm.session.tuning.setting import Setting
from nbllm.store.presets import shelf
from nbllm.store.tunings import Place
from nbllm.testing import ScriptedEngine
from tests.server.serving import CHAT, Site, chat
from tests.server.test_router import Kernel
from tests.session.tuning.keeping import keep
from tests.store.gguf_writer import tiny_model, u32, write

API = "nbllm/ollama/api/"
CHOSEN = Setting("Q8_0", threads=1, max_batch=128)
TUNED = tiny_model(llama__block_count=u32(3))


@pytest.fixture
def place(site: Site) -> Iterator[Place]:
    """Of the model `org/tuned`."""
    path = write(site.models_dir / "org/tuned/tuned.gguf", tiny_model(llama__block_count=u32(9)))
    config = site.service.config()
    yield keep(path, config, CHOSEN, TUNED)
    for preset in shelf.presets(config):
        shelf.remove(preset, config)


NAME = "org/tuned/tuned"


def _ask(site: Site, name: str = NAME) -> str:
    answer = site.post(CHAT, chat(model=name))
    assert answer.status == 200, answer.body
    return str(answer.json()["choices"][0]["message"]["content"])


def test_runner_is_started_with_what_was_chosen(site: Site, place: Place) -> None:
    _ask(site)
    (spec,) = site.cast.specs
    assert (spec.path, spec.name) == (place.weights("Q8_0"), NAME)
    assert (spec.options.threads, spec.options.max_batch) == (1, 128)
    _ask(site)
    assert len(site.cast.specs) == 1


def test_preset_shares_the_runner_of_its_tuned_base(site: Site, place: Place) -> None:
    shelf.save(Preset(name="mario", base=NAME, system="You are Mario."), site.service.config())
    _ask(site)
    _ask(site, "mario")
    (spec,) = site.cast.specs
    assert spec.path == place.weights("Q8_0")


def test_presets_own_options_win(site: Site, place: Place) -> None:
    shelf.save(Preset(name="mario", base=NAME, threads=3), site.service.config())
    _ask(site, "mario")
    (spec,) = site.cast.specs
    assert (spec.path, spec.options.threads, spec.options.max_batch) == (place.weights("Q8_0"), 3, 128)


def test_what_is_forgotten_is_loaded_as_it_is(site: Site, place: Place) -> None:
    _ask(site)
    forget(place)
    _ask(site)
    assert [spec.path.name for spec in site.cast.specs] == [place.weights("Q8_0").name, "tuned.gguf"]
    assert site.cast.specs[1].options.max_batch == LoadOptions().max_batch


def test_tuned_copy_of_a_kernel_is_used_and_one_as_it_is_not(site: Site, place: Place) -> None:
    plain, engine = ScriptedEngine(), ScriptedEngine()
    engine.enqueue("from the kernel")
    kernels = [Kernel(site, plain, model=NAME)]
    try:
        site.scripted("from a runner")
        assert _ask(site) == "from a runner"
        weights = place.weights("Q8_0").relative_to(site.models_dir)
        kernels.append(Kernel(site, engine, model=str(weights.with_suffix(""))))
        assert _ask(site) == "from the kernel"
    finally:
        for kernel in kernels:
            kernel.close()


@pytest.mark.usefixtures("place")
def test_lists_tell_of_the_model_itself(site: Site) -> None:
    _ask(site)
    shown = site.post(API + "show", {"model": NAME}).json()
    assert shown["model_info"]["llama.block_count"] == 9
    tags = {one["name"]: one for one in site.get(API + "tags").json()["models"]}
    (running,) = site.get(API + "ps").json()["models"]
    assert running["name"] == f"{NAME}:latest"
    assert running["digest"] == tags[running["name"]]["digest"]
    assert running["details"] == tags[running["name"]]["details"]


def test_removal_unloads_the_tuned_copy_and_takes_it_along(site: Site, place: Place) -> None:
    _ask(site)
    assert site.request("DELETE", API + "delete", {"model": NAME}).status == 200
    assert site.get(API + "ps").json()["models"] == []
    assert not place.path.exists()
    assert not place.weights("Q8_0").exists()


# ---- without a server


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(models_dir=tmp_path, foreign_stores=(), default_model="toy", endpoints={})


def test_target_has_what_was_chosen_and_lists_look_for_none(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(config.models_dir / "toy.gguf", tiny_model())
    place = keep(path, config, CHOSEN)
    names = ModelNames(lambda: config, ("far",))
    target = names.target("toy")
    assert (target.path, target.file) == (path, place.weights("Q8_0"))
    assert names.target("toy:latest", also=("toy",)).file == place.weights("Q8_0")
    far = names.target("far")
    assert (far.path, far.file) == (None, None)
    monkeypatch.setattr("nbllm.server.naming.tuned", lambda *_: pytest.fail("it was looked for"))
    assert names.listed()["toy"].file == path


def test_tuning_is_looked_for_again_only_when_its_folder_has_changed(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = keep(write(config.models_dir / "toy.gguf", tiny_model()), config, CHOSEN)
    looks: list[Path] = []

    def counted(path: Path, config: Config) -> Tuned | None:
        looks.append(path)
        return tuned(path, config)

    monkeypatch.setattr("nbllm.server.naming.tuned", counted)
    names = ModelNames(lambda: config, ())
    for _ in range(2):  # it has changed just now, and may again within the same tick
        assert names.target("toy").file == place.weights("Q8_0")
    assert len(looks) == 2
    os.utime(place.folder, (1, 1))
    for _ in range(3):
        assert names.target("toy").file == place.weights("Q8_0")
    assert len(looks) == 3
    forget(place)
    assert names.target("toy").file == names.target("toy").path


def test_servers_own_options_win(tmp_path: Path) -> None:
    path = tmp_path / "toy.gguf"
    chosen = Tuned(path, path, {"threads": 1, "max_batch": 128, "flash_attention": True}, "")
    router = Router.__new__(Router)
    router._options = LoadOptions(context_length=1024, threads=2, kv_type="f16")
    options = router._options_of(Target("toy", path, tuned=chosen))
    assert options == LoadOptions(context_length=1024, threads=2, kv_type="f16", max_batch=128)


def test_errors_of_the_tuned_file_say_no_folder() -> None:
    path = Path("/home/ada/models/toy.gguf")
    chosen = Tuned(path, path.parent / ".tuned/0123-Q8_0.gguf", {}, "")
    with (
        pytest.raises(ModelLoadError, match=r"^0123-Q8_0\.gguf: is cut; toy\.gguf$"),
        for_clients(Target("toy", path, tuned=chosen)),
    ):
        raise ModelLoadError(f"{chosen.path}: is cut; {path}")
