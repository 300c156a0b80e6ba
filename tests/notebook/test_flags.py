"""Every flag of %%chat does what its manual says: most of them change the request that the engine gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nbllm.core import GenerateRequest
from nbllm.notebook.arguments import FLAGS
from tests.notebook.conftest import Notebook

Check = Callable[[Notebook, GenerateRequest], bool]


def _said(request: GenerateRequest) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in request.messages or ()]


def _sampling(name: str, value: object) -> Check:
    return lambda notebook, request: bool(getattr(request.sampling, name) == value)


def _template_option(value: bool) -> Check:
    return lambda notebook, request: request.template_options == {"enable_thinking": value}


# What each flag adds to `%%chat ... \n tell me {x}` after one turn "before"/"earlier", and what it must have done.
REACHES: dict[str, tuple[str, Check]] = {
    "--model": ("-m toy", lambda notebook, request: notebook.models.num_loads == 1),
    "--system": ("-s Tersely", lambda notebook, request: _said(request)[0] == ("system", "Tersely")),
    "--conversation": ("-c other", lambda notebook, request: _said(request) == [("user", "tell me 7")]),
    "--new": ("--new", lambda notebook, request: _said(request) == [("user", "tell me 7")]),
    "--no-history": ("--no-history", lambda notebook, request: _said(request) == [("user", "tell me 7")]),
    "--temperature": ("--temperature 0.25", _sampling("temperature", 0.25)),
    "--top-p": ("--top-p 0.5", _sampling("top_p", 0.5)),
    "--top-k": ("--top-k 3", _sampling("top_k", 3)),
    "--min-p": ("--min-p 0.125", _sampling("min_p", 0.125)),
    "--max-tokens": ("--max-tokens 9", _sampling("max_tokens", 9)),
    "--seed": ("--seed 11", _sampling("seed", 11)),
    "--stop": ("--stop END", _sampling("stop", ("END",))),
    "--timeout": ("--timeout 7.5", lambda notebook, request: request.timeout_s == 7.5),
    "--reproducible": ("--reproducible", lambda notebook, request: request.reproducible),
    "--option": ("-o presence_penalty 0.5", _sampling("presence_penalty", 0.5)),
    "--schema": (
        "--schema 'name, age int'",
        lambda notebook, request: request.constraint is not None and '"age"' in request.constraint.source,
    ),
    "--raw": ("--raw", lambda notebook, request: _said(request)[-1] == ("user", "tell me {x}")),
    "--think": ("--think", _template_option(True)),
    "--no-think": ("--no-think", _template_option(False)),
    "--template": ("-t polite", lambda notebook, request: _said(request)[-1][1] == "Dear Sir, tell me 7"),
    "--parameter": (
        "-t polite -p who=Ma'am",
        lambda notebook, request: _said(request)[-1][1] == "Dear Ma'am, tell me 7",
    ),
    "--context": ("--context 2", lambda notebook, request: "x = 7" in _said(request)[-1][1]),
    "--output": ("-O kept", lambda notebook, request: notebook.shell.user_ns["kept"].text == "print(1)"),
    "--usage": ("-u", lambda notebook, request: "queue 0.00 s" in notebook.plain),
    "--format": ("--format code", lambda notebook, request: notebook.markdown.startswith("```python\nprint(1)\n```")),
}
# These are about what was answered before, or answers later; each has its own test, named here.
ELSEWHERE = {
    "--continue": "test_cells.py::test_continue_goes_on_with_an_interrupted_answer",
    "--trim": "test_cells.py::test_trim_leaves_out_the_oldest_turns_and_says_so",
    "--extract": "test_cells.py::test_extract_puts_the_code_into_the_next_cell",
    "--cache": "test_cells.py::test_cache_answers_an_unchanged_cell_from_disk",
}


def test_every_flag_is_tested() -> None:
    assert {spec.long for spec in FLAGS} == {*REACHES, *ELSEWHERE}


@pytest.mark.parametrize("flag", REACHES)
def test_flag_reaches_the_engine(notebook: Notebook, flag: str, tmp_path: Any) -> None:
    folder = tmp_path / "work" / "templates"
    folder.mkdir()
    (folder / "polite.md").write_text("---\ndefaults: {who: Sir}\n---\nDear {who}, {input}")
    notebook.run("x = 7")
    notebook.engine.enqueue("earlier")
    assert notebook.run("%chat before").success
    notebook.engine.enqueue("print(1)")
    line, check = REACHES[flag]
    notebook.models.num_loads = 0
    notebook.run(f"%%chat {line}\ntell me {{x}}")
    request = notebook.engine.requests[-1]
    assert isinstance(request, GenerateRequest)
    assert check(notebook, request)


@pytest.mark.parametrize("flag", REACHES)
def test_check_of_a_flag_fails_without_it(notebook: Notebook, flag: str, tmp_path: Any) -> None:
    """The checks above can fail: without its flag none of them holds."""
    notebook.run("x = 7")
    for answer in ("earlier", "print(1)"):
        notebook.engine.enqueue(answer)
    notebook.run("%chat before")
    notebook.run("%%chat\ntell me {x}")
    request = notebook.engine.requests[-1]
    assert isinstance(request, GenerateRequest)
    try:
        holds = REACHES[flag][1](notebook, request)
    except KeyError:  # -O: the variable is not there
        holds = False
    assert not holds or flag == "--model"
