"""`jupyter nbllm tune`, with a lab that computes nothing."""

from __future__ import annotations

import pytest

from nbllm.config import load_config
from nbllm.server.command import main
from nbllm.session.tuning import typed
from nbllm.session.tuning.tune import Tuning
from tests.session.tuning.laboratory import ScriptedLab
from tests.store.gguf_writer import tiny_model, u32, write


@pytest.fixture
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    write(load_config().models_dir / "toy.gguf", tiny_model(**{"general.file_type": u32(3)}))
    lab = ScriptedLab({"": 200.0, "Q8_0": 300.0}, divergences={"Q8_0": 0.004})
    monkeypatch.setattr(typed, "Tuning", lambda wish, model, config: Tuning(wish, model, config, lab_of=lambda *_: lab))


@pytest.mark.usefixtures("_toy")
def test_table_is_printed_and_the_choice_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "toy"]) == 0
    out = capsys.readouterr().out
    assert "SETTING" in out
    assert "\nQ8_0 is used from the next load of toy on" in out
    assert main(["tune", "toy", "--forget"]) == 0
    assert capsys.readouterr().out.startswith("toy is loaded as it is from now on")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        pytest.param(["tune"], "write tune NAME", id="no name"),
        pytest.param(["tune", ""], "the name is empty", id="empty name"),
        pytest.param(["tune", "nothing-of-this-name"], "nothing-of-this-name", id="no model"),
        pytest.param(["tune", "toy", "--max-kl", "-1"], "--max-kl: must be a number", id="less than nothing"),
        pytest.param(["tune", "toy", "--max-kl=a\nb"], "--max-kl: must be a number", id="two lines"),
        pytest.param(["tune", "toy", "--dry-run=no"], "--dry-run takes no value", id="value of a switch"),
        pytest.param(["tune", "nothing-such", "--forget"], "nothing-such", id="unknown to forget"),
    ],
)
def test_what_cannot_be_done_is_one_line(words: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 1
    err = capsys.readouterr().err
    assert problem in err
    assert err.count("\n") == 1


def test_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--help"]) == 0
    assert "--max-kl" in capsys.readouterr().out
