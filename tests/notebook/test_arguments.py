from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.error import UsageError

from nbllm.notebook.arguments import FLAGS, parse
from nbllm.notebook.magics import ChatMagics


@pytest.mark.parametrize(
    ("line", "prompt"),
    [
        pytest.param('what\'s the "capital" of France', 'what\'s the "capital" of France', id="quotes"),
        pytest.param("is {x} or $y more?", "is {x} or $y more?", id="braces"),
        pytest.param("-1 + 3 is?", "-1 + 3 is?", id="negative number"),
        pytest.param("- a list", "- a list", id="dash"),
        pytest.param("--- a rule", "--- a rule", id="rule"),
        pytest.param("-- --new is an option?", "--new is an option?", id="end of options"),
        pytest.param("--seed 3 what --seed means", "what --seed means", id="only leading options"),
        pytest.param("--new  two  spaces", "two  spaces", id="inner spaces stay"),
    ],
)
def test_prose_is_taken_as_it_is(line: str, prompt: str) -> None:
    assert parse(line).prompt == prompt


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_prose_after_the_end_of_options_arrives(prose: str) -> None:
    assert parse(f"--new -- {prose}").prompt == prose.strip()


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        pytest.param("--temperature 0.3", "temperature", 0.3, id="temperature"),
        pytest.param("--temperature=0", "temperature", 0, id="equals sign"),
        pytest.param("--top-p .9", "top_p", 0.9, id="top-p"),
        pytest.param("--top-k 40", "top_k", 40, id="top-k"),
        pytest.param("--min-p 0.1", "min_p", 0.1, id="min-p"),
        pytest.param("--max-tokens 12", "max_tokens", 12, id="max-tokens"),
        pytest.param("--seed -1", "seed", -1, id="a value may start with a dash"),
        pytest.param("--timeout 2.5", "timeout", 2.5, id="timeout"),
        pytest.param("--timeout soon", "timeout", "soon", id="no number stays for the check"),
        pytest.param("--reproducible", "reproducible", True, id="reproducible"),
        pytest.param(r"--stop '\n' --stop END", "stop", ["\n", "END"], id="stop twice"),
        pytest.param(r'--stop "it\'s \"so\""', "stop", ['it\'s "so"'], id="quotes in quotes"),
    ],
)
def test_sampling_option_is_read(line: str, name: str, value: object) -> None:
    assert parse(line + " go on").options == {name: value}


def test_own_options_are_read() -> None:
    asked = parse("-m 'my model' --system=\"You're terse.\" --new --no-history -O answer hello")
    assert (asked.model, asked.system, asked.new, asked.no_history) == ("my model", "You're terse.", True, True)
    assert (asked.output, asked.prompt, asked.options) == ("answer", "hello", {})


def test_body_of_a_cell_is_the_prompt() -> None:
    asked = parse("--seed 3", "\nfirst line\n\n  -m is not an option here\n")
    assert asked.prompt == "first line\n\n  -m is not an option here"
    assert asked.options == {"seed": 3}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param("--temprature 1 hi", "did you mean --temperature", id="typo"),
        pytest.param("-temperature 1 hi", "did you mean --temperature", id="one dash"),
        pytest.param("-Q hi", "%chat?", id="unknown letter"),
        pytest.param("--seed", "--seed needs a value: --seed NUMBER", id="no value"),
        pytest.param("--system 'never closed", "not closed", id="open quote"),
        pytest.param("--new=yes hi", "takes no value", id="switch with a value"),
        pytest.param("-O not-a-name hi", "name of a variable", id="output is no name"),
        pytest.param("-O class hi", "name of a variable", id="output is a keyword"),
    ],
)
def test_wrong_option_says_what_to_type(line: str, says: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(line)
    assert says in str(raised.value)
    assert raised.type is UsageError  # IPython shows a subclass with a traceback
    assert "\n" not in str(raised.value)


def test_prose_beside_the_name_of_a_cell_magic_is_refused() -> None:
    with pytest.raises(UsageError, match="lines below"):
        parse("smollm2", "hello")


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_manual_names_every_option(flag: object) -> None:
    manual = " ".join((ChatMagics.chat.__doc__ or "").split())
    long, short, text = (getattr(flag, name) for name in ("long", "short", "help"))
    assert long in manual
    assert text in manual
    assert short is None or f"[{short}" in manual


def test_value_that_sticks_to_a_short_option_is_told_apart() -> None:
    with pytest.raises(UsageError, match="write -m toy, or --"):
        parse("-mtoy hello")
