"""Which settings are measured, and which one is chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbllm.errors import NbllmError
from nbllm.session.tuning.measurement import Measurement, Speeds
from nbllm.session.tuning.record import Record
from nbllm.session.tuning.setting import Setting
from nbllm.session.tuning.tuner import Step, Tuner
from nbllm.store.tunings import Place
from tests.session.tuning.laboratory import Q4_1, ScriptedLab


def tuner(lab: ScriptedLab, folder: Path, *, record: Record | None = None, limit: float = 0.05) -> Tuner:
    place = Place.of(folder, 100, "ab" * 32, "12345678")
    return Tuner(Q4_1, 4, lab, place, record or Record(), limit, lambda _: None, lambda _: None)


def test_fastest_of_those_that_are_close_enough_is_chosen(tmp_path: Path) -> None:
    lab = ScriptedLab({"": 200, "Q8_0": 300, "Q4_0": 400}, divergences={"Q8_0": 0.004, "Q4_0": 0.2})
    assert tuner(lab, tmp_path).run() == Setting(weights="Q8_0")
    assert tuner(lab, tmp_path, limit=0.5).run() == Setting(weights="Q4_0")
    assert tuner(lab, tmp_path, limit=0.001).run() == Setting()


@pytest.mark.parametrize(
    ("option", "value"),
    [("threads", 3), ("flash_attention", True), ("kv_type", "q8_0"), ("max_batch", 128)],
)
def test_option_that_is_faster_joins_the_best_weights(tmp_path: Path, option: str, value: object) -> None:
    lab = ScriptedLab({"": 200, "Q8_0": 300, "Q4_0": 100}, {option: 1.2}, {"Q8_0": 0.004})
    chosen = tuner(lab, tmp_path).run()
    assert (chosen.weights, chosen.options) == ("Q8_0", {option: value})


def test_gain_within_the_noise_changes_nothing(tmp_path: Path) -> None:
    lab = ScriptedLab({"": 200, "Q8_0": 205, "Q4_0": 204}, {"threads": 1.02})
    assert tuner(lab, tmp_path).run() == Setting()


@pytest.mark.parametrize(
    ("runs", "is_chosen"),
    [((210, 215, 220), True), ((190, 215, 230), False), ((190, 260, 280), True), ((201, 202, 203), False)],
    ids=["steady", "unsteady", "unsteady but far ahead", "too little"],
)
def test_unsteady_gain_has_to_be_a_large_one(tmp_path: Path, runs: tuple[float, ...], is_chosen: bool) -> None:
    plain = Measurement(Setting(), tuple(Speeds(1, 1, 200) for _ in runs), 0.0, 1)
    other = Measurement(Setting("Q8_0"), tuple(Speeds(1, 1, run) for run in runs), 0.0, 1)
    one = tuner(ScriptedLab({}), tmp_path, record=Record(measured=(plain, other)))
    assert one.best() == (other if is_chosen else plain).setting


def test_setting_that_ends_its_process_is_a_row_that_says_so(tmp_path: Path) -> None:
    one = tuner(ScriptedLab({"": 200, "Q4_0": 300}), tmp_path)
    assert one.run() == Setting(weights="Q4_0")
    broken = one.record.of(Setting(weights="Q8_0"))
    assert broken is not None
    assert (broken.problem, broken.runs) == ("its process was ended by SIGKILL", ())


def test_model_that_cannot_be_measured_as_it_is_ends_the_tuning(tmp_path: Path) -> None:
    with pytest.raises(NbllmError, match="toy cannot be measured: its process was ended by SIGKILL"):
        tuner(ScriptedLab({}), tmp_path).run()


def test_interrupted_tuning_goes_on_where_it_was(tmp_path: Path) -> None:
    lab = ScriptedLab({"": 200, "Q8_0": 300, "Q4_0": 100}, interrupt_at=4)
    first = tuner(lab, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    assert len(first.record.measured) == 3
    again = ScriptedLab({"": 200, "Q8_0": 300, "Q4_0": 100})
    second = tuner(again, tmp_path, record=first.record)
    assert second.run() == Setting(weights="Q8_0")
    assert again.asked[0] == lab.asked[-1], "the measurement that was interrupted is made again, and none before it"


def test_what_failed_is_tried_again(tmp_path: Path) -> None:
    first = tuner(ScriptedLab({"": 200, "Q4_0": 100}), tmp_path)
    first.run()
    second = tuner(ScriptedLab({"": 200, "Q8_0": 300, "Q4_0": 100}), tmp_path, record=first.record)
    assert second.run() == Setting(weights="Q8_0")


def test_finalists_are_measured_in_turn(tmp_path: Path) -> None:
    lab = ScriptedLab({"": 200, "Q8_0": 250, "Q4_0": 20})
    one = tuner(lab, tmp_path)
    one.run()
    runs = [asked for asked in lab.asked if asked.startswith("run")]
    assert [run for run in runs if run in ("run plain", "run Q8_0")] == ["run plain", "run Q8_0"] * 3
    assert runs.count("run Q4_0") == 1, "what is far behind is not worth more runs"


def test_distributions_are_compared_once_for_what_computes_alike(tmp_path: Path) -> None:
    lab = ScriptedLab({"": 200, "Q8_0": 300, "Q4_0": 100})
    tuner(lab, tmp_path).run()
    compared = [asked for asked in lab.asked if asked.startswith("compare")]
    assert compared == ["compare Q8_0 f16", "compare Q4_0 f16", "compare Q8_0 q8_0"]


def test_weights_that_a_stricter_tuning_removed_are_made_again(tmp_path: Path) -> None:
    lab = ScriptedLab({"": 200, "Q8_0": 300, "Q4_0": 100})
    first = tuner(lab, tmp_path)
    first.run()
    file = first.place.weights("Q8_0")
    file.unlink()
    again = ScriptedLab({})
    assert tuner(again, tmp_path, record=first.record).run() == Setting(weights="Q8_0")
    assert file.exists()
    assert again.asked == ["make Q8_0"]


@pytest.mark.parametrize("on_gpu", [False, True])
def test_flash_attention_is_tried_the_other_way(tmp_path: Path, on_gpu: bool) -> None:
    lab = ScriptedLab({"": 200, "Q8_0": 100, "Q4_0": 100}, on_gpu=on_gpu)
    tuner(lab, tmp_path).run()
    assert f"run plain flash_attention={not on_gpu}" in lab.asked


def test_progress_never_goes_beyond_its_end(tmp_path: Path) -> None:
    steps: list[Step] = []
    one = tuner(ScriptedLab({"": 200, "Q8_0": 300, "Q4_0": 250}), tmp_path)
    one.tell = steps.append
    one.run()
    assert all(step.num_done < step.num_steps and 0 <= step.share <= 1 for step in steps)
    assert [step.num_done for step in steps] == sorted(step.num_done for step in steps)
    assert {step.text.split()[0] for step in steps} == {"writing", "comparing", "measuring"}
