"""What cells do with each other: conversations, going on, the answers on disk, the next cell."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from nbllm.core import Chunk, GenerateRequest
from nbllm.errors import ContextOverflowError, InvalidRequestError
from tests.notebook.conftest import Notebook
from tests.notebook.test_magics import interrupt_at, request, said


def ask(notebook: Notebook, code: str, answer: str, cell_id: str | None = None) -> list[tuple[str, str]]:
    """Run a cell that gets this answer; what the engine was told."""
    notebook.engine.enqueue(answer)
    assert notebook.run(code, cell_id).success
    return said(notebook)


# ---- conversations


def test_cell_that_is_run_again_takes_its_old_place(notebook: Notebook) -> None:
    ask(notebook, "%chat one", "A1", "c1")
    ask(notebook, "%chat two", "A2", "c2")
    ask(notebook, "%chat three", "A3", "c3")
    assert ask(notebook, "%chat two again", "B2", "c2") == [
        ("user", "one"), ("assistant", "A1"), ("user", "two again"),
    ]  # fmt: skip
    assert ask(notebook, "%chat four", "A4", "c4")[-3:] == [
        ("user", "two again"), ("assistant", "B2"), ("user", "four"),
    ]  # fmt: skip
    notebook.run("%llm history")
    assert notebook.plain.count("(stale)") == 2


def test_cell_without_an_id_always_goes_on(notebook: Notebook) -> None:
    ask(notebook, "%chat one", "A1")
    assert len(ask(notebook, "%chat one", "A1")) == 3


def test_two_questions_of_one_cell_follow_each_other(notebook: Notebook) -> None:
    notebook.engine.enqueue("A1")
    notebook.engine.enqueue("A2")
    assert notebook.run("%chat one\n%chat two", "c1").success
    assert said(notebook) == [("user", "one"), ("assistant", "A1"), ("user", "two")]


def test_another_model_goes_on_with_the_same_conversation(notebook: Notebook) -> None:
    ask(notebook, "%chat one", "A1")
    assert len(ask(notebook, "%chat -m toy two", "A2")) == 3


def test_cell_without_a_system_message_goes_on_with_the_conversation_before_it(notebook: Notebook) -> None:
    ask(notebook, "%chat -s pirate one", "A1")
    assert ask(notebook, "%chat two", "A2")[0] == ("system", "pirate")


def test_named_conversations_are_kept_apart(notebook: Notebook) -> None:
    ask(notebook, "%chat -c left one", "L1")
    ask(notebook, "%chat -c right two", "R1")
    assert ask(notebook, "%chat -c left three", "L2") == [("user", "one"), ("assistant", "L1"), ("user", "three")]


def test_failed_question_leaves_the_conversation_as_it_was(notebook: Notebook) -> None:
    ask(notebook, "%chat one", "A1", "c1")
    notebook.engine.enqueue(InvalidRequestError("no"))
    assert not notebook.run("%chat -c other two", "c2").success
    assert len(ask(notebook, "%chat three", "A3", "c3")) == 3


def test_two_threads_ask_at_once(notebook: Notebook) -> None:
    notebook.models.num_loads = 1
    for answer in ("one", "two"):
        notebook.engine.enqueue(answer)
    run = notebook.shell.run_line_magic
    threads = [threading.Thread(target=run, args=("chat", f"-c t{index} hi")) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    identities = {output["transient"]["display_id"] for output in notebook.outputs}
    assert len(identities) == 2
    assert {turn.answer.content for tree in desk(notebook).conversations.trees() for turn in tree.turns} == {
        "one",
        "two",
    }


def test_answer_of_a_thread_has_its_place_before_it_comes(notebook: Notebook) -> None:
    """Front ends put an output under the cell that runs when it is first published."""
    notebook.models.num_loads = 1
    notebook.engine.enqueue("the answer")
    is_claimed, may_go_on = threading.Event(), threading.Event()

    def hold(data: dict[str, Any]) -> None:
        is_claimed.set()
        may_go_on.wait(10)

    notebook.publisher.on_publish = hold
    thread = threading.Thread(target=notebook.shell.run_line_magic, args=("chat", "hi"))
    thread.start()
    assert is_claimed.wait(10)
    assert [output["data"]["text/plain"] for output in notebook.outputs] == ["…"]
    assert not notebook.engine.requests
    may_go_on.set()
    thread.join()
    assert notebook.plain.startswith("the answer")
    assert len({output["transient"]["display_id"] for output in notebook.outputs}) == 1


@pytest.mark.parametrize("name", ["age", "nothing", "text"])
def test_schema_takes_no_variable_that_only_happens_to_have_the_name(
    notebook: Notebook, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    notebook.run("age = 5; nothing = None; text = 'name, age int'")
    assert not notebook.run(f"%chat --schema {name} hi").success
    said = capsys.readouterr()
    assert f"the variable {name} holds a" in said.out + said.err
    assert f"write '{name} str'" in said.out + said.err
    assert ask(notebook, f"%chat --schema '{name} str' hi", "{}") == [("user", "hi")]


def test_table_as_a_schema_is_one_line(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.run("import pandas\ndf = pandas.DataFrame({'a': [1, 2]})")
    assert not notebook.run("%chat --schema df hi").success
    said = capsys.readouterr()
    assert "holds a DataFrame" in said.out + said.err
    assert "Traceback" not in said.out + said.err


# ---- going on with an answer


def test_interrupt_while_the_whole_answer_is_shown_loses_nothing(notebook: Notebook) -> None:
    notebook.models.num_loads = 1
    notebook.engine.enqueue("Once upon")
    interrupt_at(notebook, "tokens in")
    assert not notebook.run("%chat -O kept a story").success
    assert notebook.shell.user_ns["kept"].text == "Once upon"
    assert ask(notebook, "%chat and then?", "The end")[1] == ("assistant", "Once upon")


def test_continue_of_a_conversation_that_is_not_there_names_those_that_are(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(notebook, "%chat -c draft hi", "A1")
    assert not notebook.run("%chat --continue -c drat").success
    said = capsys.readouterr()
    assert "no conversation 'drat'; the closest names: draft" in said.out + said.err


def test_continue_asks_for_one_answer(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.models.num_loads = 1
    notebook.engine.enqueue([Chunk(text="Once", finish_reason="length")])
    assert notebook.run("%chat hi").success
    assert not notebook.run("%chat --continue -o n 3").success
    said = capsys.readouterr()
    assert "a cell shows one answer" in said.out + said.err
    assert len(notebook.engine.requests) == 1


def test_continue_goes_on_with_an_interrupted_answer(notebook: Notebook) -> None:
    notebook.models.num_loads = 1
    notebook.engine.enqueue(["Once upon"], until_cancelled=True)
    interrupt_at(notebook, "Once")
    notebook.run("%chat a story")
    notebook.engine.enqueue(" a time")
    result: Any = notebook.run("%chat --continue")
    assert said(notebook) == [("user", "a story"), ("assistant", "Once upon")]
    assert request(notebook).continue_final
    assert result.result.text == "Once upon a time"
    assert notebook.markdown.startswith("Once upon a time\n")
    assert ask(notebook, "%chat and then?", "The end")[1] == ("assistant", "Once upon a time")


def test_continue_of_a_complete_answer_says_so_and_asks_nothing(notebook: Notebook) -> None:
    ask(notebook, "%chat one", "A1")
    assert notebook.run("%chat --continue").success
    assert "complete" in notebook.plain
    assert len(notebook.engine.requests) == 1


@pytest.mark.parametrize("line", ["--continue", "--continue --no-history", "--continue some text"])
def test_continue_without_an_answer_or_with_a_text_is_refused(notebook: Notebook, line: str) -> None:
    assert not notebook.run(f"%chat {line}").success
    assert notebook.engine.requests == []


# ---- a long conversation


def test_trim_keeps_a_turn_when_the_answer_may_be_longer_than_the_context(notebook: Notebook) -> None:
    ask(notebook, "%chat one", "A1")
    assert len(ask(notebook, "%chat --trim --max-tokens 99999 two", "A2")) == 3


def test_trim_leaves_out_the_oldest_turns_and_says_so(notebook: Notebook) -> None:
    for index in range(4):
        ask(notebook, f"%chat {'x' * 900} {index}", "y" * 100)
    ask(notebook, f"%chat --trim --max-tokens 100 {'x' * 900} last", "fine")
    sent = said(notebook)
    assert len(sent) < 9
    assert sent[0][0] == "user"
    assert sent[-1][1].endswith("last")
    rendered = notebook.engine.render(request(notebook))
    assert len(rendered.tokens) <= 4096 - 100
    dropped = (9 - len(sent)) // 2
    assert f"left out the {f'{dropped} oldest turns' if dropped > 1 else 'oldest turn'}" in notebook.plain


def test_trim_keeps_everything_that_fits(notebook: Notebook) -> None:
    ask(notebook, "%chat one", "A1")
    assert len(ask(notebook, "%chat --trim two", "A2")) == 3
    assert "left out" not in notebook.plain


def test_conversation_that_does_not_fit_is_an_error_that_names_trim(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(notebook, "%chat one", "A1")
    notebook.engine.enqueue(ContextOverflowError(5000, 4096))
    assert not notebook.run("%chat two").success
    assert "--trim" in capsys.readouterr().out


# ---- code


def test_in_is_what_was_typed(notebook: Notebook) -> None:
    notebook.run("x = !true")
    ask(notebook, "%chat {In[1]}", "yes")
    assert said(notebook)[-1][1] == "x = !true"


def test_values_of_a_template_may_be_variables(notebook: Notebook, tmp_path: Path) -> None:
    (tmp_path / "work" / "templates").mkdir()
    (tmp_path / "work" / "templates" / "to.md").write_text("Into {language}: {input}")
    notebook.run("wanted = 'French'")
    ask(notebook, "%chat -t to -p language={wanted} hello", "bonjour")
    assert said(notebook)[-1][1] == "Into French: hello"


def test_extract_puts_the_code_into_the_next_cell(notebook: Notebook) -> None:
    ask(notebook, "%chat -x code please", "Here:\n\n```python\nprint(1)\n```")
    assert notebook.next_inputs == [("print(1)", False)]


def test_extract_without_code_says_so(notebook: Notebook) -> None:
    ask(notebook, "%chat -x code please", "I would rather not.")
    assert "no code" in notebook.plain
    assert notebook.next_inputs == []


def test_explain_sends_the_error_and_the_code_of_its_cell(notebook: Notebook) -> None:
    assert not notebook.run("count = 3\ncount / 0").success
    ask(notebook, "%explain what now?", "You divide by zero.")
    text = said(notebook)[-1][1]
    for part in ("ZeroDivisionError", "count / 0", "what now?"):
        assert part in text


def test_explain_without_an_error_is_refused(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    assert not notebook.run("%explain").success
    assert "nothing to explain" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("verb", "old", "new"),
    [
        pytest.param("fix", "x = {1}\nprint(x", "x = {1}\nprint(x)", id="fix"),
        pytest.param("doc", "def f(): return {1}", 'def f():\n    """One."""\n    return {1}', id="doc"),
        pytest.param("test", "x = {1}", "x = {1}\nassert x", id="test"),
    ],
)
def test_verb_shows_a_diff_and_replaces_the_cell(notebook: Notebook, verb: str, old: str, new: str) -> None:
    ask(notebook, f"%%{verb}\n{old}", f"```python\n{new}\n```")
    assert old in said(notebook)[-1][1]
    assert notebook.markdown.startswith("```diff")
    assert f"+{new.splitlines()[-1]}" in notebook.plain
    assert notebook.next_inputs == [(new, True)]


@pytest.mark.parametrize("verb", ["doc", "test"])
def test_verb_that_keeps_the_code_needs_valid_code(
    notebook: Notebook, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not notebook.run(f"%%{verb}\nprint(x").success
    assert "%%fix" in capsys.readouterr().out
    assert notebook.engine.requests == []


@pytest.mark.parametrize(
    ("block", "cell"),
    [
        pytest.param("```bash\nls\n```", "%%bash\nls", id="bash"),
        pytest.param("```js\nx = 1\n```", "%%javascript\nx = 1", id="javascript"),
        pytest.param("```sql\nselect 1\n```", "select 1", id="a language without a magic"),
    ],
)
def test_extract_says_what_language_it_is(notebook: Notebook, block: str, cell: str) -> None:
    ask(notebook, "%chat -x code please", block)
    assert notebook.next_inputs == [(cell, False)]
    assert ("sql" in notebook.plain.splitlines()[-1]) == ("sql" in block)


def test_fix_without_code_leaves_the_cell(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.engine.enqueue("It looks fine to me.")
    assert not notebook.run("%%fix\nx = 1").success
    assert notebook.next_inputs == []
    assert capsys.readouterr().out.strip().count("\n") == 0


# ---- answers on disk


def test_cache_answers_an_unchanged_cell_from_disk(notebook: Notebook) -> None:
    ask(notebook, "%chat --cache --new one", "A1")
    first = notebook.outputs[-1]
    notebook.models.num_loads = 0
    result: Any = notebook.run("%chat --cache --new one")
    assert (result.result.text, notebook.models.num_loads, len(notebook.engine.requests)) == ("A1", 0, 1)
    again = notebook.outputs[-1]
    assert (again["data"], again["metadata"]) == (first["data"], first["metadata"])
    assert len(again["metadata"]["nbllm"]["sha256"]) == 64


@pytest.mark.parametrize(
    "changed", ["%chat --cache --new two", "%chat --cache --new --seed 1 one", "%chat --cache --new -s S one"]
)
def test_cache_asks_again_when_anything_changed(notebook: Notebook, changed: str) -> None:
    ask(notebook, "%chat --cache --new one", "A1")
    ask(notebook, changed, "A2")
    assert len(notebook.engine.requests) == 2


def test_cached_answer_puts_its_code_into_the_next_cell_too(notebook: Notebook) -> None:
    ask(notebook, "%chat --cache --new -x one", "no code here")
    first = notebook.plain
    notebook.run("%chat --cache --new -x one")
    assert notebook.plain == first
    assert first.count("no code") == 2


def test_cached_answers_are_turns_of_the_conversation(notebook: Notebook) -> None:
    ask(notebook, "%chat --cache --new one", "A1")
    notebook.run("%chat --cache --new one")
    assert ask(notebook, "%chat two", "A2") == [("user", "one"), ("assistant", "A1"), ("user", "two")]


# ---- settings


def test_config_sets_what_cells_do(notebook: Notebook) -> None:
    notebook.run('%config NbLLM.options = {"temperature": 0.5}')
    notebook.run('%config NbLLM.system = "Tersely"')
    notebook.run("%config NbLLM.usage = False")
    assert ask(notebook, "%chat one", "A1")[0] == ("system", "Tersely")
    assert request(notebook).sampling.temperature == 0.5
    assert "tokens" not in notebook.plain
    assert ask(notebook, "%chat --no-history aside", "X")[0] == ("system", "Tersely")
    ask(notebook, "%chat --temperature 0 two", "A2")
    assert request(notebook).sampling.temperature == 0


@pytest.mark.parametrize("value", ['{"temperatur": 1}', '{"temperature": 900}', "3"])
def test_config_refuses_options_that_are_none(notebook: Notebook, value: str) -> None:
    notebook.run(f"%config NbLLM.options = {value}")
    assert desk(notebook).settings.options == {}


def test_autosave_writes_the_conversation_beside_the_notebook(notebook: Notebook, tmp_path: Path) -> None:
    notebook.run("%config NbLLM.autosave = True")
    ask(notebook, "%chat one", "A1")
    ask(notebook, "%chat two", "A2")
    (file,) = (tmp_path / "work").glob("chat-1-*.jsonl")
    assert len(file.read_text().splitlines()) == 4


def test_autosave_that_fails_says_how_to_end_it_and_keeps_the_answer(
    notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(type(desk(notebook)), "autosave_file", lambda *_: tmp_path / "gone" / "chat.jsonl")
    notebook.run("%config NbLLM.autosave = True")
    notebook.engine.enqueue("A1")
    assert not notebook.run("%chat -O kept hi").success
    printed = capsys.readouterr()
    assert "%config NbLLM.autosave = False" in printed.out + printed.err
    assert "Traceback" not in printed.out + printed.err
    assert notebook.shell.user_ns["kept"].text == "A1"
    assert len(desk(notebook).conversations.current.turns) == 1


def test_nothing_is_written_unasked(notebook: Notebook, tmp_path: Path) -> None:
    ask(notebook, "%chat one", "A1")
    assert list((tmp_path / "work").iterdir()) == []


def desk(notebook: Notebook) -> Any:
    return notebook.shell.magics_manager.registry["ChatMagics"].desk


def test_request_is_one_that_the_engine_takes(notebook: Notebook) -> None:
    ask(notebook, "%chat -o n 1 one", "A1")
    assert isinstance(notebook.engine.requests[-1], GenerateRequest)
    assert not notebook.run("%chat -o n 2 one").success
