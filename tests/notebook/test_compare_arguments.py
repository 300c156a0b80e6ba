"""What stands behind %%compare."""

from __future__ import annotations

from typing import Any

import pytest
from IPython.core.error import UsageError

from nbllm.notebook.compare_arguments import FLAGS, CompareArguments, parse_compare

# What each flag adds to the line, and what it makes of it.
SAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "--system": ("-s 'be brief'", {"system": "be brief"}),
    "--temperature": ("--temperature 0,0.8", {"grid": {"temperature": [0, 0.8]}}),
    "--top-p": ("--top-p=0.5", {"grid": {"top_p": [0.5]}}),
    "--top-k": ("--top-k 3,5", {"grid": {"top_k": [3, 5]}}),
    "--min-p": ("--min-p 0.1", {"grid": {"min_p": [0.1]}}),
    "--max-tokens": ("--max-tokens 9", {"grid": {"max_tokens": [9]}}),
    "--option": ('-o stop "[[\\"a\\"], [\\"b\\"]]"', {"grid": {"stop": [["a"], ["b"]]}}),
    "--schema": ("--schema 'name, age int'", {"schema": "name, age int"}),
    "--repeat": ("--repeat 3", {"repeat": 3}),
    "--seed": ("--seed 7", {"seed": 7}),
    "--data": ("-d table", {"data": "table"}),
    "--expected": ("--expected answer", {"expected": "answer"}),
    "--scorer": ("--scorer equals --scorer regex=[0-9]+", {"scorers": ("equals", ("regex", "[0-9]+"))}),
    "--judge": ("--judge 'is it kind?'", {"judge": "is it kind?"}),
    "--limit": ("--limit 5", {"limit": 5}),
    "--output": ("-O res", {"output": "res"}),
    "--diff": ("--diff", {"diff": True}),
    "--no-cache": ("--no-cache", {"cache": False}),
    "--raw": ("--raw", {"raw": True}),
}


@pytest.mark.parametrize("flag", [spec.long for spec in FLAGS])
def test_every_flag_says_what_it_should(flag: str) -> None:
    line, wanted = SAYS[flag]
    assert parse_compare(line, "hi") == CompareArguments(prompts=("hi",), **wanted)


@pytest.mark.parametrize(
    "line", ["a.gguf b --repeat 2", "--repeat 2 a.gguf b", "a.gguf --repeat 2 b", "'a.gguf' --repeat=2 b"]
)
def test_models_stand_anywhere_among_the_options(line: str) -> None:
    asked = parse_compare(line, "hi")
    assert (asked.models, asked.repeat) == (("a.gguf", "b"), 2)


def test_model_with_a_space_stands_in_quotes() -> None:
    assert parse_compare('"my models/a.gguf"', "hi").models == ("my models/a.gguf",)


def test_line_of_dashes_stands_between_prompts() -> None:
    assert parse_compare("", "one\n---\n two\n\n--- \nthree --- still\n").prompts == ("one", "two", "three --- still")


@pytest.mark.parametrize(
    ("line", "cell", "message"),
    [
        pytest.param("a b", "\n", "needs a prompt", id="no prompt"),
        pytest.param("a b a", "hi", "names a model twice", id="model twice"),
        pytest.param("--temprature 1", "hi", "did you mean --temperature", id="near miss"),
        pytest.param("--repeat two", "hi", "--repeat takes a whole number, not 'two'", id="no number"),
        pytest.param("--data 1x", "hi", "--data takes the name of a variable", id="no name"),
        pytest.param("--judge", "hi", "--judge needs a value", id="no value"),
        pytest.param("'a b", "hi", "the quote is not closed", id="open quote"),
    ],
)
def test_wrong_line_says_what_to_type(line: str, cell: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_compare(line, cell)
