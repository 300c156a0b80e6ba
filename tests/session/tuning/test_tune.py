"""A whole tuning, measured by a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nbllm.config import Config
from nbllm.core import ModelInfo
from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.session.tuning.kept import tuned
from nbllm.session.tuning.tune import Outcome, Tuning
from nbllm.session.tuning.wish import Wish
from nbllm.store.pulling.lock import locked
from nbllm.store.tunings import tunings_folder
from tests.session.tuning.laboratory import Q4_1, ScriptedLab

Run = Callable[..., Outcome]
FAST = {"": 200.0, "Q8_0": 300.0, "Q4_0": 400.0}
FAR = {"Q8_0": 0.004, "Q4_0": 0.2}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(models_dir=tmp_path / "models")


@pytest.fixture
def model(tmp_path: Path) -> ModelInfo:
    path = tmp_path / "toy.gguf"
    path.write_bytes(b"GGUF")
    return replace(Q4_1, path=str(path), size_bytes=4)


@pytest.fixture
def lab() -> ScriptedLab:
    return ScriptedLab(FAST, divergences=FAR)


@pytest.fixture
def tune(config: Config, model: ModelInfo, lab: ScriptedLab) -> Run:
    def run(**wishes: object) -> Outcome:
        wish = Wish("toy", **wishes)  # type: ignore[arg-type]
        return Tuning(wish, model, config, lab_of=lambda *_: lab).run(lambda _: None)

    return run


def files(config: Config) -> list[str]:
    return sorted(path.name.partition("-")[2] for path in tunings_folder(config).glob("*"))


def test_choice_is_kept_and_said(tune: Run, model: ModelInfo, config: Config) -> None:
    outcome = tune()
    assert outcome.text == (
        "Q8_0 is used from the next load of toy on: 1.50 times as fast for 8 answers side by side, at 0.0040 nats a "
        "token from it"
    )
    assert outcome.table is not None
    assert "chosen" in outcome.table.text()
    found = tuned(model.path, config)
    assert found is not None
    assert found.path.read_bytes() == b"Q8_0"
    assert [name for name in files(config) if name.endswith(".gguf")] == ["Q8_0.gguf"], "others are removed"


def test_second_tuning_measures_nothing_again(tune: Run, lab: ScriptedLab) -> None:
    first = tune().text
    lab.asked.clear()
    assert tune().text == first
    assert lab.asked == []


def test_other_limit_chooses_anew_from_what_was_measured(tune: Run, model: ModelInfo, config: Config) -> None:
    tune()
    tune(max_divergence=0.5)
    found = tuned(model.path, config)
    assert found is not None
    assert found.path.read_bytes() == b"Q4_0"
    assert tune(max_divergence=0.0).text.startswith("toy is best as it is")
    assert tuned(model.path, config) is None


def test_dry_run_keeps_nothing(tune: Run, model: ModelInfo, config: Config) -> None:
    assert tune(keeps=False).text.startswith("Q8_0 would be chosen: 1.50 times as fast")
    assert not config.models_dir.exists()
    assert tuned(model.path, config) is None


def test_forgetting_undoes_it(tune: Run, model: ModelInfo, config: Config) -> None:
    tune()
    assert tune(forgets=True).text.startswith("toy is loaded as it is from now on; removed ")
    assert tuned(model.path, config) is None
    assert not tunings_folder(config).exists()
    assert tune(forgets=True).text == "nothing was kept of toy"


def test_interrupt_keeps_what_was_measured(tune: Run, lab: ScriptedLab, model: ModelInfo, config: Config) -> None:
    lab.interrupt_at = 3
    with pytest.raises(KeyboardInterrupt):
        tune()
    assert tuned(model.path, config) is None
    lab.interrupt_at = 0
    lab.asked.clear()
    tune()
    assert lab.asked[0] == "compare Q4_0 f16", "the first that was not finished"


def test_busy_machine_is_told_of(tune: Run, lab: ScriptedLab) -> None:
    lab.num_busy = 1
    assert "Other programs were computing meanwhile" in tune().text


def test_two_tunings_at_once_are_refused(tune: Run, config: Config) -> None:
    with (
        locked(tunings_folder(config), config.models_dir, lambda: None),
        pytest.raises(InvalidRequestError, match="another tune is under way"),
    ):
        tune()


def test_models_folder_that_cannot_be_written_is_one_line(tune: Run, config: Config) -> None:
    config.models_dir.write_text("a file")
    with pytest.raises(ParameterError, match="models_dir"):
        tune()
