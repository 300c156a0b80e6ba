from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import nbllm
from nbllm.errors import ParameterError
from nbllm.frames.compare.manifest import load_manifest, save_manifest
from tests.frames.compare.talking import Garage, talking

_DATA = pd.DataFrame(
    {
        "day": pd.to_datetime(["2026-01-02", "2026-03-04"]), "x": [1.5, None], "tags": [["a"], ["b", "c"]],
        "gold": ["one", "two"],
    }
)  # fmt: skip


def _run(garage: Garage, **options: Any) -> Any:
    prompts = {"day": "{day:%d %B} {tags}", "number": "{x}", "chat": [{"role": "user", "content": "hello {gold}"}]}
    return nbllm.compare(
        prompts, [garage.add("a"), garage.add("b", lambda request: "5")], {"temperature": [0, 1], "stop": [["x", "y"]]},
        _DATA, expected="gold", scorers={"near": "levenshtein", "one": ("contains", "one")}, judge="good", repeat=2,
        seed=5, order="input", cache=False, **options,
    )  # fmt: skip


def test_a_manifest_is_json_and_replays_to_the_same_frame(garage: Garage, tmp_path: Path) -> None:
    frame = _run(garage)
    path = save_manifest(frame, tmp_path / "run.json")
    assert load_manifest(path) == frame.attrs["nbllm"] == json.loads(json.dumps(frame.attrs["nbllm"]))
    for source in (frame, path, str(path), frame.attrs["nbllm"]):
        again = nbllm.replay(source)
        changing = ["run_id", "created_at", "load_ms"]
        pd.testing.assert_frame_equal(again.drop(columns=changing), frame.drop(columns=changing), check_dtype=False)
        assert again.attrs["nbllm"]["inputs"] == frame.attrs["nbllm"]["inputs"]


def test_a_manifest_survives_what_pandas_does(garage: Garage) -> None:
    frame = _run(garage)
    for kept in (frame.head(2), frame.assign(x=1), frame[frame["case"] == 0], frame.merge(frame[["response_id"]])):
        assert kept.attrs["nbllm"]["run_id"] == frame["run_id"][0]


def test_a_manifest_names_what_it_was_made_with(garage: Garage) -> None:
    manifest = _run(garage, response_format="name, age int", on_error="keep").attrs["nbllm"]
    assert {"nbllm", "llama-cpp-python", "python", "platform"} <= set(manifest["versions"])
    assert [model["name"] for model in manifest["models"]] == ["a.gguf", "b.gguf"]
    assert all(len(model["file_hash"]) == 64 for model in manifest["models"])
    assert set(manifest["inputs"]["response_format"]["json_schema"]["schema"]["properties"]) == {"name", "age"}


def test_a_list_of_texts_is_not_filled_when_it_is_replayed(garage: Garage) -> None:
    frame = nbllm.compare(["{a} {{b}}", "c"], garage.add("a"), expected=["x", "y"], scorers="equals", cache=False)
    again = nbllm.replay(frame)
    assert again["input"].tolist() == ["{a} {{b}}", "c"]
    assert again["score_equals"].tolist() == frame["score_equals"].tolist()


def test_another_file_is_refused_unless_changes_are_allowed(garage: Garage, capsys: pytest.CaptureFixture[str]) -> None:
    frame = _run(garage)
    Path(garage.add("a")).write_bytes(b"other weights")
    garage.log.clear()
    with pytest.raises(ParameterError, match=r"a\.gguf is another file now") as caught:
        nbllm.replay(frame)
    assert "allow_changes=True" in str(caught.value)
    assert garage.log == []
    assert len(nbllm.replay(frame, allow_changes=True)) == len(frame)
    assert "a.gguf is another file now" in capsys.readouterr().out


def test_changed_versions_are_told_in_one_line(garage: Garage, capsys: pytest.CaptureFixture[str]) -> None:
    frame = _run(garage)
    frame.attrs["nbllm"]["versions"] |= {"nbllm": "0.0.1", "python": "2.7"}
    capsys.readouterr()
    nbllm.replay(frame, progress=False)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "changed" in line]
    assert "nbllm 0.0.1 -> " in line
    assert "python 2.7 -> 3" in line


def test_a_file_that_is_gone_is_told(garage: Garage) -> None:
    frame = _run(garage)
    Path(garage.add("a")).unlink()
    with pytest.raises(ParameterError, match=r"a\.gguf"):
        nbllm.replay(frame)


def test_what_a_manifest_cannot_hold_is_asked_for() -> None:
    frame = nbllm.compare("hi", talking("m"), scorers={"own": len}, cache=False)
    with pytest.raises(ParameterError, match=r"models=\{'m': \.\.\.\}"):
        nbllm.replay(frame)
    with pytest.raises(ParameterError, match=r"scorers=\{'own': \.\.\.\}"):
        nbllm.replay(frame, models={"m": talking("m")})
    with pytest.raises(ParameterError, match="there was no 'k'"):
        nbllm.replay(frame, models={"k": talking("k")})
    again = nbllm.replay(frame, models={"m": talking("m")}, scorers={"own": len})
    assert again["score_own"].tolist() == [6]


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(pd.DataFrame({"a": [1]}), id="frame"),
        pytest.param({}, id="dict"),
        pytest.param("/no/such/file.json", id="no file"),
        pytest.param({"format": "nbllm-compare", "version": 99}, id="later"),
    ],
)
def test_no_manifest_is_told(source: Any) -> None:
    with pytest.raises(ParameterError, match="manifest"):
        nbllm.replay(source)


def test_a_file_that_is_no_manifest_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text in ("", "[]", "{", '{"format": 1}'):
        path.write_text(text)
        with pytest.raises(ParameterError):
            load_manifest(path)


def test_a_manifest_that_cannot_be_written_is_told(garage: Garage, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="cannot be written"):
        save_manifest(_run(garage), tmp_path / "no" / "folder.json")
