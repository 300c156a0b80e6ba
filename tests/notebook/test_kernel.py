"""Cells in a real kernel, answered by the bundled model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.notebook.kernel import Kernel, started

pytestmark = [pytest.mark.model, pytest.mark.usefixtures("smollm2_path")]

ASSISTANT = "-s 'You are a helpful assistant.' --temperature 0 --max-tokens 30"
FRANCE = f"%chat --no-history {ASSISTANT} What is the capital of France?"
STORY = "%%chat --new --seed 1 --temperature 0.8 --max-tokens 4000 --stop '~~~'\nTell me a very long story about a fox."


@pytest.fixture(scope="module")
def kernel(smollm2_path: Path) -> Iterator[Kernel]:
    with started() as kernel:
        assert kernel.run("%load_ext nbllm").reply["status"] == "ok"
        yield kernel


class Interrupter:
    """Interrupts the kernel when it has updated its output so many times; 0 is when the cell begins."""

    def __init__(self, kernel: Kernel, num_updates: int) -> None:
        self._kernel, self._left = kernel, num_updates

    def __call__(self, message: dict[str, Any]) -> None:
        is_sign = message["msg_type"] == "stream" if not self._left else "display" in message["msg_type"]
        if self._left < 0 or not is_sign:
            return
        self._left -= 1
        if self._left <= 0:
            self._left = -1
            self._kernel.manager.interrupt_kernel()


def test_loading_says_nothing_and_twice_is_harmless() -> None:
    with started() as kernel:
        ran = kernel.run("%load_ext nbllm\n%reload_ext nbllm\nimport sys\nassert 'llama_cpp' not in sys.modules")
        assert ran.reply["status"] == "ok"
        assert ran.contents("stream", "display_data", "execute_result") == []
        ran = kernel.run("%unload_ext nbllm\n%chat hi")
        assert ran.reply["status"] == "error"


def test_cell_answers_with_both_mimes_in_one_output(kernel: Kernel) -> None:
    ran = kernel.run(f"%%chat {ASSISTANT}\nWhat is the capital of France?")
    assert ran.reply["status"] == "ok"
    assert [message["msg_type"] for message in ran.messages].count("display_data") == 1
    assert len({display["transient"]["display_id"] for display in ran.displays}) == 1
    data = ran.displays[-1]["data"]
    assert set(data) == {"text/plain", "text/markdown"}
    assert all("Paris" in text for text in data.values())
    assert ran.contents("execute_result", "stream") == []
    assert ran.record["finish_reason"] == "stop"


def test_next_cell_goes_on_from_a_cached_prefix(kernel: Kernel) -> None:
    kernel.run(f"%%chat --new {ASSISTANT}\nWhat is the capital of France?")
    ran = kernel.run(f"%%chat {ASSISTANT}\nAnd of Italy?")
    assert "Rome" in ran.markdown
    assert ran.record["usage"]["cached_tokens"] > 27


def test_question_mark_variable_and_value(kernel: Kernel) -> None:
    ran = kernel.run(f"r = %chat --no-history -O kept {ASSISTANT} What is the capital of France?")
    assert "Paris" in ran.markdown
    ran = kernel.run("print(r is kept, r.text, r.finish_reason)")
    assert ran.printed == "True The capital of France is Paris. stop\n"
    ran = kernel.run("r")
    assert "Paris" in ran.contents("execute_result")[0]["data"]["text/markdown"]


def test_last_value_is_the_response(kernel: Kernel) -> None:
    kernel.run(FRANCE)
    assert kernel.run("print(_.text)").printed == "The capital of France is Paris.\n"


@pytest.mark.parametrize("num_updates", [0, 1, 4, 13])
def test_interrupt_keeps_the_text_and_frees_the_engine(kernel: Kernel, num_updates: int) -> None:
    body = STORY.partition("\n")
    code = f"print('go')\nget_ipython().run_cell_magic('chat', {body[0].removeprefix('%%chat')!r}, {body[2]!r})"
    ran = kernel.run(code, Interrupter(kernel, num_updates))
    assert (ran.reply["status"], ran.reply["ename"]) == ("error", "KeyboardInterrupt")
    if num_updates:
        assert ran.record["finish_reason"] == "interrupted"
        assert "interrupted" in ran.markdown
        assert ran.markdown.split("\n\n<small>")[0].strip()
        assert len(ran.contents("error")[0]["traceback"]) == 1
    assert "Paris" in kernel.run(FRANCE).markdown


def test_interrupted_answer_is_part_of_the_conversation(kernel: Kernel) -> None:
    partial = kernel.run(STORY, Interrupter(kernel, 6)).record["usage"]["completion_tokens"]
    assert partial > 0
    ran = kernel.run("%%chat --temperature 0 --max-tokens 5\nGo on.")
    assert ran.record["usage"]["prompt_tokens"] > partial + 40


def test_cell_takes_the_model_that_was_loaded_with_options(kernel: Kernel) -> None:
    kernel.run("import nbllm\nsmall = nbllm.load('smollm2', context_length=512)")
    try:
        ran = kernel.run("%chat --no-history " + "many words " * 300)
        assert "the context holds 512" in ran.contents("error")[0]["evalue"]
    finally:
        kernel.run("small.close()")


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        pytest.param("%%chat --temperature 300\nhi", "at most 100", id="range"),
        pytest.param("%%chat -m smolm2\nhi", "smollm2", id="model"),
        pytest.param("%%chat --temprature 1\nhi", "did you mean --temperature", id="option"),
        pytest.param("%chat " + "many words " * 5000, "the context holds", id="overflow"),
    ],
)
def test_wrong_cell_is_one_line_and_the_kernel_goes_on(kernel: Kernel, cell: str, says: str) -> None:
    ran = kernel.run(cell)
    assert ran.reply["status"] == "error"
    shown = [line for error in ran.contents("error") for line in error["traceback"]]
    shown += [line for line in ran.printed.splitlines() if line.strip()]
    assert len(shown) == 1
    assert says in shown[0]
    assert "\n" not in shown[0]
    assert kernel.run("1").reply["status"] == "ok"
