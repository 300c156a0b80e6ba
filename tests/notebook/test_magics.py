from __future__ import annotations

import re
from typing import Any

import pytest
from IPython.core.displaypub import DisplayPublisher

from nbllm.core import GenerateRequest, Message
from nbllm.errors import EngineError, ModelNotFoundError, ParameterError
from nbllm.session.response import Response
from tests.notebook.conftest import Notebook


def request(notebook: Notebook, index: int = -1) -> GenerateRequest:
    found = notebook.engine.requests[index]
    assert isinstance(found, GenerateRequest)
    return found


def said(notebook: Notebook, index: int = -1) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in request(notebook, index).messages or ()]


def interrupt_at(notebook: Notebook, text: str) -> None:
    def watch(data: dict[str, Any]) -> None:
        if text in data["text/plain"]:
            notebook.publisher.on_publish = None
            raise KeyboardInterrupt

    notebook.publisher.on_publish = watch


def test_answer_is_shown_once_and_is_the_value_of_the_cell(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook.engine.enqueue("**Hello**")
    result = notebook.run("%%chat\nSay hello")
    assert isinstance(result.result, Response)
    assert notebook.shell.user_ns["_"] is result.result
    assert notebook.shell.user_ns["Out"][1] is result.result
    assert notebook.markdown.startswith("**Hello**\n\n<small>")
    assert notebook.outputs[-1]["data"]["text/plain"].startswith("**Hello**\n\n")
    assert "Hello" not in capsys.readouterr().out


def test_answer_in_a_variable_is_shown_by_a_later_cell(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.engine.enqueue("Hello")
    notebook.run("r = %chat say hello")
    assert notebook.shell.user_ns["r"].text == "Hello"
    assert "Hello" not in capsys.readouterr().out
    notebook.run("r")
    assert "Hello" in capsys.readouterr().out


def test_answer_is_shown_again_when_asked_for(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.engine.enqueue("Hello")
    notebook.run("%chat say hello")
    notebook.run("_")
    assert "Hello" in capsys.readouterr().out


@pytest.mark.parametrize("cell", ["%chat {options} what's up?", "%%chat {options}\nwhat's up?"], ids=["line", "cell"])
def test_every_option_reaches_the_engine(notebook: Notebook, cell: str) -> None:
    notebook.engine.enqueue("Fine")
    options = (
        "-m toy -s 'Be terse.' --temperature 0.5 --top-p 0.9 --top-k 7 --min-p 0.02 --max-tokens 11 --seed 42 "
        r"--stop '\n' --stop END --timeout 9 --reproducible"
    )
    assert notebook.run(cell.format(options=options)).success
    asked = request(notebook)
    sampling = asked.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 7, 0.02)
    assert (sampling.max_tokens, sampling.seed, sampling.stop) == (11, 42, ("\n", "END"))
    assert (asked.timeout_s, asked.reproducible, asked.priority) == (9, True, "interactive")
    assert said(notebook) == [("system", "Be terse."), ("user", "what's up?")]


def test_question_mark_and_braces_reach_the_model(notebook: Notebook) -> None:
    notebook.engine.enqueue("Five")
    notebook.shell.user_ns["x"] = 5
    notebook.run("%chat what is {x} or {y}, or $x?")
    assert said(notebook) == [("user", "what is 5 or {y}, or $x?")]


def test_a_system_message_has_a_conversation_of_its_own(notebook: Notebook) -> None:
    for answer in ("A1", "B1", "A2", "B2"):
        notebook.engine.enqueue(answer)
    notebook.run("%chat one")
    notebook.run("%chat -s pirate two")
    notebook.run("%chat -s '' three")
    notebook.run("%chat -s pirate four")
    assert said(notebook, 1) == [("system", "pirate"), ("user", "two")]
    assert said(notebook, 2) == [("user", "one"), ("assistant", "A1"), ("user", "three")]
    assert said(notebook, 3)[:2] == said(notebook, 1)


def test_new_starts_over(notebook: Notebook) -> None:
    for answer in ("A1", "A2", "A3"):
        notebook.engine.enqueue(answer)
    notebook.run("%chat one")
    notebook.run("%chat --new two")
    notebook.run("%chat three")
    assert said(notebook, 1) == [("user", "two")]
    assert said(notebook, 2) == [("user", "two"), ("assistant", "A2"), ("user", "three")]


def test_new_alone_forgets_and_asks_nothing(notebook: Notebook) -> None:
    notebook.engine.enqueue("A1")
    notebook.engine.enqueue("A2")
    notebook.run("%chat one")
    assert notebook.run("%chat --new").success
    notebook.run("%chat two")
    assert said(notebook, 1) == [("user", "two")]


def test_no_history_neither_reads_nor_writes_the_conversation(notebook: Notebook) -> None:
    for answer in ("A1", "X", "A2"):
        notebook.engine.enqueue(answer)
    notebook.run("%chat -s S one")
    notebook.run("%chat -s S --no-history aside")
    notebook.run("%chat -s S two")
    assert said(notebook, 1) == [("system", "S"), ("user", "aside")]
    assert said(notebook, 2) == [("system", "S"), ("user", "one"), ("assistant", "A1"), ("user", "two")]


def test_output_puts_the_response_into_a_variable(notebook: Notebook) -> None:
    notebook.engine.enqueue("Hello")
    result = notebook.run("%%chat -O answer\nSay hello")
    assert notebook.shell.user_ns["answer"] is result.result


def test_model_is_loaded_once_and_says_so(notebook: Notebook) -> None:
    notebook.engine.enqueue("One")
    notebook.engine.enqueue("Two")
    notebook.run("%chat one")
    plain = [entry["data"]["text/plain"] for entry in notebook.outputs]
    assert plain[:2] == ["loading toy …", "scripted"]
    assert plain[-1].endswith("\nscripted")
    notebook.run("%chat two")
    assert "scripted" not in notebook.markdown
    assert notebook.models.num_loads == 1


def test_metadata_records_how_the_answer_was_made(notebook: Notebook) -> None:
    notebook.engine.enqueue("Hello")
    notebook.run("%chat -s S --temperature 0 --max-tokens 9 --stop END hi")
    record = notebook.outputs[-1]["metadata"]["nbllm"]
    assert record["model"] == "toy"
    assert (
        record["parameters"].items()
        >= {"temperature": 0.0, "max_tokens": 9, "stop": ["END"], "system": "S", "top_k": 40}.items()
    )
    assert (record["seed"], record["finish_reason"]) == (0, "stop")
    assert record["usage"]["completion_tokens"] == 5
    assert set(record["timings"]) == {"queue_s", "prefill_s", "first_token_s", "decode_s"}


@pytest.mark.parametrize(
    ("line", "error", "says"),
    [
        pytest.param("--temperature 300 hi", ParameterError, "at most 100", id="out of range"),
        pytest.param("--top-k few hi", ParameterError, "whole number", id="no number"),
        pytest.param("--timeout -1 hi", ParameterError, "seconds above 0", id="timeout"),
        pytest.param("--stop '' hi", ParameterError, "empty string", id="empty stop"),
        pytest.param("-m tou hi", ModelNotFoundError, "toy", id="unknown model"),
        pytest.param("", ValueError, "prompt is empty", id="no prompt"),
    ],
)
def test_wrong_value_is_one_line_and_loads_nothing(
    notebook: Notebook, line: str, error: type[Exception], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = notebook.run(f"%chat {line}")
    assert isinstance(result.error_in_exec, error)
    shown = capsys.readouterr()
    assert says in shown.out
    assert (shown.out + shown.err).strip().count("\n") == 0
    assert (notebook.models.num_loads, notebook.outputs) == (0, [])


@pytest.mark.parametrize(
    "attack",
    [
        "<img src=x onerror=alert(1)>",
        "```\n<script>alert(1)</script>\n```\n<img src=x onerror=alert(1)>",
        "[a](javascript:alert(1)) ![](https://example.com/x.png)",
        "<details open ontoggle=alert(1)>",
    ],
)
def test_model_output_is_inert(notebook: Notebook, attack: str) -> None:
    notebook.engine.enqueue([*attack])
    notebook.run("%chat attack me")
    assert len(notebook.outputs) > 1
    for output in notebook.outputs:
        outside_fences = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", output["data"]["text/markdown"], flags=re.M | re.S)
        shown = re.sub(r"</?(small|em|br|code)>", "", outside_fences)
        assert "<" not in shown
        assert "](javascript:" not in shown
        assert "![" not in shown


def test_interrupt_keeps_the_partial_answer_everywhere(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.models.num_loads = 1
    notebook.engine.enqueue(["Once upon", " a time"], until_cancelled=True)
    notebook.engine.enqueue("Go on")
    interrupt_at(notebook, "Once")
    result = notebook.run("%%chat -O partial\nTell a story")
    assert isinstance(result.error_in_exec, KeyboardInterrupt)
    assert notebook.engine.tickets[-1].is_done
    assert notebook.markdown.startswith("Once upon\n\n")
    assert "interrupted" in notebook.markdown
    assert notebook.outputs[-1]["metadata"]["nbllm"]["finish_reason"] == "interrupted"
    partial = notebook.shell.user_ns["partial"]
    assert (partial.text, partial.finish_reason) == ("Once upon", "interrupted")
    assert partial.usage.completion_tokens == len("Once upon")
    shown = capsys.readouterr()
    assert (shown.out + shown.err).strip().count("\n") == 0
    notebook.run("%chat and then")
    assert said(notebook)[1:] == [("assistant", "Once upon"), ("user", "and then")]


def test_interrupt_while_loading_is_one_line_and_leaves_a_shell_that_works(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook.engine.enqueue("Hello")
    interrupt_at(notebook, "loading")
    assert isinstance(notebook.run("%chat hi").error_in_exec, KeyboardInterrupt)
    printed = capsys.readouterr()
    assert "the loading was stopped; run the cell again" in printed.out
    assert "Traceback" not in printed.out + printed.err
    assert notebook.run("%chat hi").success
    assert said(notebook) == [("user", "hi")]


def test_failure_of_the_engine_keeps_what_came(notebook: Notebook) -> None:
    notebook.engine.enqueue(["Half an", EngineError("out of order")])
    notebook.engine.enqueue("Hello")
    result = notebook.run("%chat -O partial hi")
    assert isinstance(result.error_in_exec, EngineError)
    assert notebook.shell.user_ns["partial"].finish_reason == "error"
    assert "error" in notebook.markdown
    assert notebook.run("%chat hi").success


def test_conversation_survives_a_model_that_is_loaded_again(notebook: Notebook) -> None:
    from nbllm.session.model import Model

    notebook.engine.enqueue("A1")
    notebook.engine.enqueue("A2")
    notebook.run("%chat one")
    notebook.models.model = Model(notebook.engine)
    notebook.run("%chat two")
    assert said(notebook) == [("user", "one"), ("assistant", "A1"), ("user", "two")]


def test_terminal_prints_the_answer_once(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.shell.display_pub = DisplayPublisher(shell=notebook.shell)  # type: ignore[no-untyped-call]
    notebook.engine.enqueue(["Hel", "lo"])
    notebook.run("%chat hi")
    assert capsys.readouterr().out.count("Hello") == 1


def test_turns_keep_the_tokens_that_were_generated(notebook: Notebook) -> None:
    notebook.engine.enqueue("AB")
    notebook.engine.enqueue("C")
    notebook.run("%chat one")
    notebook.run("%chat two")
    turn = (request(notebook).messages or ())[1]
    assert isinstance(turn, Message)
    assert turn.tokens == (65, 66)
