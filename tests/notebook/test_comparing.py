"""%%compare: models answer in blocks of their own, then the grid shows the answers side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nbllm.errors import EngineError, NbllmError
from nbllm.frames import keeping
from nbllm.session.cache import AnswerCache
from tests.frames.answering import answering
from tests.frames.compare.talking import Garage, Reply, asked, echo, requests_of, talking
from tests.notebook.conftest import Notebook


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "users_cache", AnswerCache(tmp_path / "answers"))


@pytest.fixture
def models(notebook: Notebook) -> dict[str, Any]:
    """Two models in variables, the second of which shouts."""
    made = {"calm": talking("calm"), "loud": talking("loud", lambda request: asked(request).upper())}
    notebook.shell.user_ns.update(made)
    return made


def _failed(notebook: Notebook, code: str) -> BaseException:
    result = notebook.run(code)
    error: BaseException | None = result.error_before_exec or result.error_in_exec
    assert error is not None
    return error


def _blocks(notebook: Notebook) -> list[list[str]]:
    """What each model's output said, one after the other."""
    shown: dict[str, list[str]] = {}
    for output in notebook.outputs:
        if display_id := (output.get("transient") or {}).get("display_id"):
            shown.setdefault(display_id, []).append(output["data"]["text/plain"])
    return list(shown.values())


@pytest.mark.usefixtures("models")
def test_frame_is_the_cells_value_and_the_grid_is_what_it_shows(notebook: Notebook) -> None:
    value: Any = notebook.run("%%compare calm loud -O res\nhello").result
    frame = notebook.shell.user_ns["res"]
    assert value is frame
    assert frame[["model", "response"]].to_numpy().tolist() == [["calm", "re: hello"], ["loud", "HELLO"]]
    shown = notebook.outputs[-1]["data"]
    for kind in ("text/html", "text/markdown", "text/plain"):
        assert "re: hello" in shown[kind]
        assert "HELLO" in shown[kind]
    assert sum("text/html" in output["data"] for output in notebook.outputs) == 1, "the frame is not shown as well"


@pytest.mark.usefixtures("models")
def test_each_model_has_a_block_that_ends_as_one_line(notebook: Notebook) -> None:
    notebook.run("%%compare calm loud\nhello")
    blocks = _blocks(notebook)
    assert [block[-1].partition(" · ")[0] for block in blocks] == ["calm: 1 answer", "loud: 1 answer"]


def test_prompts_options_and_variables_reach_the_models(notebook: Notebook, models: dict[str, Any]) -> None:
    notebook.shell.user_ns["topic"] = "bees"
    notebook.run(
        "%%compare calm --temperature 0,0.5 --max-tokens 9 -s Tersely --no-cache\nWhy {topic}?\n---\nAnd {{x}}?"
    )
    requests = requests_of(models["calm"])
    assert {asked(request) for request in requests} == {"Why bees?", "And {x}?"}
    assert {request.sampling.temperature for request in requests} == {0, 0.5}
    assert {request.sampling.max_tokens for request in requests} == {9}
    assert {(request.messages or ())[0].content for request in requests} == {"Tersely"}


@pytest.mark.usefixtures("models")
def test_table_gives_cases_and_right_answers(notebook: Notebook) -> None:
    notebook.shell.user_ns["table"] = pd.DataFrame({"word": ["a", "b"], "gold": ["re: a", "no"]})
    notebook.run("%%compare calm -d table --expected gold --scorer equals -O res\n{word}")
    assert notebook.shell.user_ns["res"]["score_equals"].tolist() == [1.0, 0.0]


@pytest.mark.usefixtures("models")
def test_scorer_may_be_a_function_of_the_notebook(notebook: Notebook) -> None:
    notebook.run("def short(text): return len(text) < 8")
    notebook.run("%%compare calm loud --scorer short -O res\nhello")
    assert notebook.shell.user_ns["res"]["score_short"].tolist() == [0.0, 1.0]


def test_variable_may_hold_a_file(notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    garage = Garage(tmp_path, monkeypatch)
    notebook.shell.user_ns["mine"] = garage.add("a file of a long name")
    notebook.run("%%compare mine -O res\nhello")
    assert notebook.shell.user_ns["res"][["model", "response"]].to_numpy().tolist() == [["mine", "re: hello"]]
    assert garage.log == ["load a file of a long name", "close a file of a long name"]


@pytest.mark.usefixtures("models")
def test_difference_is_marked(notebook: Notebook) -> None:
    notebook.run("%%compare calm loud --diff\nhello")
    assert "<ins" in notebook.outputs[-1]["data"]["text/html"]


def test_second_run_is_from_the_cache(notebook: Notebook, tmp_path: Path) -> None:
    notebook.shell.user_ns["kept"] = answering(tmp_path)[0]
    for _ in range(2):
        notebook.run("%%compare kept\nhello")
    assert _blocks(notebook) == [["kept: 1 answer, from the cache"]]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        pytest.param("%%compare calm -d table\n{word}", "there is no variable table", id="no table"),
        pytest.param("%%compare nowhere.gguf\nhi", "nowhere.gguf", id="no model"),
        pytest.param("%%compare calm --scorer equals\nhi", "expected", id="nothing expected"),
        pytest.param("%%compare calm --temperature hot\nhi", "temperature", id="no number"),
    ],
)
@pytest.mark.usefixtures("models")
def test_wrong_cell_is_one_line(notebook: Notebook, code: str, message: str) -> None:
    error = _failed(notebook, code)
    assert isinstance(error, NbllmError)
    assert message in str(error)


def test_model_that_fails_leaves_the_others_answers(notebook: Notebook) -> None:
    broken: Reply = lambda request: EngineError("it broke")  # noqa: E731
    notebook.shell.user_ns.update(good=talking("good", echo), bad=talking("bad", broken))
    notebook.run("%%compare bad good -O res\nhello")
    frame = notebook.shell.user_ns["res"]
    assert frame["error"].notna().tolist() == [True, False]
    assert frame["response"].tolist()[1] == "re: hello"
