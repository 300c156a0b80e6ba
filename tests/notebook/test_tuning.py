"""`%llm tune`, with a lab that computes nothing."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from nbllm.config import load_config
from nbllm.errors import ParameterError
from nbllm.notebook.tuning import tune
from nbllm.session.tuning import typed
from nbllm.session.tuning.tune import Tuning
from tests.session.tuning.laboratory import ScriptedLab
from tests.store.gguf_writer import tiny_model, u32, write


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> ScriptedLab:
    write(load_config().models_dir / "toy.gguf", tiny_model(**{"general.file_type": u32(3)}))
    lab = ScriptedLab({"": 200.0, "Q8_0": 300.0}, divergences={"Q8_0": 0.004})
    monkeypatch.setattr(typed, "Tuning", lambda wish, model, config: Tuning(wish, model, config, lab_of=lambda *_: lab))
    return lab


@pytest.mark.usefixtures("lab")
def test_value_is_the_table(tmp_path: Path) -> None:
    said: list[str] = []
    table = tune(["toy"], said.append)
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns) == ["setting", "prefill", "decode", "decode_8", "kl", "size_bytes", "chosen", "problem"]
    (chosen,) = table[table.chosen].to_dict("records")
    assert (chosen["setting"], chosen["decode_8"], chosen["kl"]) == ("Q8_0", 300.0, 0.004)
    (broken,) = table[table.problem != ""].to_dict("records")
    assert (broken["setting"], broken["problem"]) == ("Q4_0", "its process was ended by SIGKILL")
    assert len(said) == 1
    assert said[0].startswith("Q8_0 is used from the next load of toy on: 1.50 times as fast")
    assert tune(["toy", "--forget"], said.append) is None
    assert said[1].startswith("toy is loaded as it is from now on")


def test_interrupt_shows_what_was_measured(lab: ScriptedLab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.interrupt_at = 2
    with pytest.raises(KeyboardInterrupt):
        tune(["toy"], lambda _: None)
    out = capsys.readouterr().out
    assert "Q4_1, as it is" in out
    assert "interrupted; 1 setting is kept: the same command goes on from there" in out


@pytest.mark.usefixtures("lab")
def test_progress_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    tune(["toy"], lambda _: None)
    assert "measuring Q8_0" in capsys.readouterr().out


def test_words_that_are_not_understood_are_refused() -> None:
    with pytest.raises(ParameterError, match="write tune NAME"):
        tune([], lambda _: None)
