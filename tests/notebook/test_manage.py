from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nbllm.notebook.manage import MANUAL
from tests.notebook.conftest import Notebook
from tests.notebook.test_cells import ask, desk
from tests.store.hub import serving, use


def test_manual_names_every_command(notebook: Notebook) -> None:
    commands = notebook.shell.magics_manager.registry["ChatMagics"].manager.commands
    assert [line.split()[1] for line in MANUAL.splitlines()] == commands
    notebook.run("%llm")
    assert notebook.plain == MANUAL


def test_load_passes_options_and_says_what_was_chosen(notebook: Notebook) -> None:
    assert notebook.run("%llm load toy context_length=2048 use_mmap=False kv_type=f16").success
    assert notebook.models.load_options == {"context_length": 2048, "use_mmap": False, "kv_type": "f16"}
    assert notebook.plain == "scripted"


def test_status_says_what_is_loaded(notebook: Notebook) -> None:
    notebook.run("%llm status")
    assert "no model is loaded" in notebook.plain
    ask(notebook, "%chat one", "A1")
    notebook.run("%llm status")
    assert "scripted" in notebook.plain
    assert "conversation chat-1, 1 turn" in notebook.plain


def test_unload_frees_the_model(notebook: Notebook) -> None:
    notebook.run("%llm load toy")
    notebook.run("%llm unload")
    assert notebook.engine.is_closed
    assert notebook.plain == "toy was unloaded"


def test_models_is_a_table(notebook: Notebook) -> None:
    result: Any = notebook.run("%llm models").result
    assert "quantization" in result.columns


def test_pull_without_a_name_is_a_table_of_what_fits(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbllm.store.foreign.total_memory", lambda: 4 * 10**9)
    assert notebook.run("%llm pull").success
    assert "smollm2:135m" in notebook.plain
    assert "gemma:7b" not in notebook.plain
    assert notebook.plain.endswith("%llm pull NAME")


def test_pull_that_is_interrupted_is_one_line(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nbllm.store.pulling.typed.pull", interrupted)
    assert isinstance(notebook.run("%llm pull hf:org/repo").error_in_exec, KeyboardInterrupt)
    said = capsys.readouterr()
    assert "pull again to go on" in said.out + said.err
    assert "Traceback" not in said.out + said.err


def test_pull_draws_a_bar_and_says_the_name(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as hub:
        use(hub, monkeypatch)
        hub.files["org/repo"] = {"m-Q4_0.gguf": bytes(1000)}
        assert notebook.run("%llm pull hf:org/repo:Q4_0").success
        assert notebook.plain.startswith("org/repo/m-Q4_0 is here: ")
        assert "m-Q4_0.gguf: 100%" in capsys.readouterr().out
        assert notebook.run("%llm pull hf:org/none").success is False
        assert "no repository org/none" in capsys.readouterr().out


def test_reset_begins_a_new_conversation(notebook: Notebook) -> None:
    ask(notebook, "%chat one", "A1")
    notebook.run("%llm reset")
    assert ask(notebook, "%chat two", "A2") == [("user", "two")]


def test_undo_goes_back_before_the_last_turn(notebook: Notebook) -> None:
    ask(notebook, "%chat one", "A1")
    ask(notebook, "%chat two", "A2")
    notebook.run("%llm undo")
    assert ask(notebook, "%chat three", "A3") == [("user", "one"), ("assistant", "A1"), ("user", "three")]


def test_save_and_open_give_the_same_conversation(notebook: Notebook) -> None:
    ask(notebook, "%chat -s S one", "A1")
    assert notebook.run("%llm save talk.jsonl").success
    notebook.run("%llm reset --all")
    assert notebook.run("%llm open talk.jsonl").success
    assert ask(notebook, "%chat two", "A2") == [
        ("system", "S"), ("user", "one"), ("assistant", "A1"), ("user", "two"),
    ]  # fmt: skip
    notebook.run("%llm history --all")
    assert "talk" in notebook.plain


def test_damaged_file_changes_nothing(notebook: Notebook, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "work" / "bad.jsonl"
    file.write_text('{"role": "user", "content": "a"}\n{"role": ')
    ask(notebook, "%chat one", "A1")
    capsys.readouterr()
    assert not notebook.run("%llm open bad.jsonl").success
    assert "line 2" in capsys.readouterr().out
    assert not notebook.run("%llm save bad.jsonl").success
    assert file.read_text().endswith('{"role": ')
    assert desk(notebook).conversations.names() == ["chat-1"]


def test_show_has_the_prompt_and_the_tokens_of_its_parts(notebook: Notebook) -> None:
    ask(notebook, "%chat -s Short one", "A1")
    ask(notebook, "%chat two", "A2")
    notebook.run("%llm show")
    rendered = notebook.engine.render(notebook.engine.requests[-1])  # type: ignore[arg-type]
    assert rendered.text in notebook.plain
    for part in (
        "5 tokens  system: Short",
        "3 tokens  earlier question: one",
        "2 tokens  earlier answer: A1",
        "3 tokens  question: two",
        f"{len(rendered.tokens):,} tokens in all",
    ):
        assert part in notebook.plain


def test_config_shows_settings_and_templates_shows_folders(notebook: Notebook, tmp_path: Path) -> None:
    notebook.run("%llm config")
    assert "NbLLM.cache = False" in notebook.plain
    assert "NBLLM_MODELS_DIR" in notebook.plain
    notebook.run("%llm templates")
    assert "no templates" in notebook.plain
    (tmp_path / "work" / "templates").mkdir()
    (tmp_path / "work" / "templates" / "polite.md").write_text("---\ndescription: Kindly\n---\n{input}")
    (tmp_path / "work" / "templates" / "broken.md").write_text("---\n[\n---\n{input}")
    notebook.run("%llm templates")
    assert "polite  Kindly" in notebook.plain
    assert "broken  cannot be used" in notebook.plain


@pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param("modles", "did you mean models?", id="unknown command"),
        pytest.param("load", "write %llm load NAME", id="no name"),
        pytest.param("load toy context_length", "NAME=VALUE", id="option without value"),
        pytest.param("pull a b", "write %llm pull [NAME]", id="two models to pull"),
        pytest.param("pull lama3.2:1b", "the closest names: llama3.2:1b", id="unknown model to pull"),
        pytest.param("pull hf:org/../repo", "does not name a repository of the hub", id="no name to pull"),
        pytest.param("load tou", "toy", id="unknown model"),
        pytest.param("tune", "write tune NAME", id="nothing to tune"),
        pytest.param("tune ''", "the name is empty", id="no name to tune"),
        pytest.param("tune nothing-such", "nothing-such", id="unknown model to tune"),
        pytest.param("tune toy --max-kl much", "--max-kl: must be a number", id="no number"),
        pytest.param("tune toy --dry-run=no", "--dry-run takes no value", id="value of a switch"),
        pytest.param("tune toy --forget --dry-run", "write tune NAME", id="switches that exclude each other"),
        pytest.param("tune toy --forget=1", "--forget takes no value", id="value of forget"),
        pytest.param("tune nothing-such --forget", "nothing-such", id="unknown model to forget"),
        pytest.param("undo", "no conversation yet", id="nothing to undo"),
        pytest.param("history other", "other", id="unknown conversation"),
        pytest.param("reset other", "other", id="reset of an unknown one"),
        pytest.param("save a b c", "write %llm save FILE [NAME]", id="too many"),
        pytest.param("save 'a", "quote", id="open quote"),
        pytest.param("open nowhere.jsonl", "nowhere", id="no such file"),
        pytest.param("show", "nothing was sent", id="nothing sent"),
    ],
)
def test_wrong_line_is_one_line_of_error(
    notebook: Notebook, line: str, says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NBLLM_REGISTRY", "none")
    assert not notebook.run(f"%llm {line}").success
    shown = capsys.readouterr()
    assert says in shown.out + shown.err
    assert (shown.out + shown.err).strip().count("\n") == 0


@pytest.mark.parametrize("line", ["", "help", "--help", "-h"])
def test_manual_is_what_help_shows(notebook: Notebook, line: str) -> None:
    assert notebook.run(f"%llm {line}").success
    assert notebook.plain == MANUAL


@pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param("open .", "'.' is no file", id="folder"),
        pytest.param("open ''", "'' is no file", id="nothing"),
        pytest.param("load toy =1", "NAME=VALUE", id="option without a name"),
    ],
)
def test_odd_value_says_what_is_wanted(
    notebook: Notebook, capsys: pytest.CaptureFixture[str], line: str, says: str
) -> None:
    assert not notebook.run(f"%llm {line}").success
    said = capsys.readouterr()
    assert says in said.out + said.err
