from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from IPython.core.completer import CompletionContext, provisionalcompleter, rectify_completions
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from nbllm.core import unknown_option
from nbllm.errors import ParameterError
from nbllm.notebook import completion
from nbllm.notebook.arguments import FLAGS, FORMATS, parse
from nbllm.notebook.completion import OPTIONS, Sources, register, unregister
from nbllm.session.requests import Options

MODELS = ["gemma3-270m", "Qwen 2.5", "qwen3", "smollm2", 'the "best"']
CONVERSATIONS = ["chat-1", "chat-2", "my thesis"]
TEMPLATES = ["poem", "review"]
COMMANDS = ["api", "attach", "history", "load", "models", "open", "reset", "save", "share", "show", "status", "unload"]
LONG = sorted(flag.long for flag in FLAGS)
SHORT = sorted(flag.short for flag in FLAGS if flag.short)
SOURCES = Sources(
    flags=dict.fromkeys(("chat", "explain", "fix", "doc", "test"), FLAGS),
    commands=COMMANDS,
    models=lambda: MODELS,
    conversations=lambda: CONVERSATIONS,
    templates=lambda: TEMPLATES,
)


def by_line(shell: Any, marked: str) -> list[str]:
    """As readline and older kernels do: one line, without what Jedi knows. The cursor is at ^."""
    before, after = marked.split("^")
    line, cursor = (before + after), len(before)
    with pytest.deprecated_call():
        typed, matches = shell.Completer.complete(line_buffer=line, cursor_pos=cursor)
    return sorted(line[: cursor - len(typed)] + match + line[cursor:] for match in matches)


def by_cell(shell: Any, marked: str) -> list[str]:
    """As ipykernel and the terminal do: the whole cell."""
    before, after = marked.split("^")
    code, cursor = before + after, len(before)
    with provisionalcompleter():
        found = list(rectify_completions(code, shell.Completer.completions(code, cursor)))
    return sorted(code[: one.start] + one.text + code[one.end :] for one in found)


def by_cell_without_jedi(shell: Any, marked: str) -> list[str]:
    shell.Completer.use_jedi = False
    return by_cell(shell, marked)


@pytest.fixture(scope="module")
def one_shell() -> Any:
    """Making one takes longer than most of these tests."""
    config = Config()
    config.HistoryManager.enabled = False
    return InteractiveShell(config=config)  # type: ignore[no-untyped-call]


@pytest.fixture
def shell(one_shell: Any) -> Iterator[Any]:
    names = dict(one_shell.user_ns)
    register(one_shell, SOURCES)
    yield one_shell
    one_shell.Completer.custom_matchers.clear()
    one_shell.Completer.use_jedi = True
    one_shell.user_ns.clear()
    one_shell.user_ns.update(names)


@pytest.mark.parametrize(
    ("marked", "lines"),
    [
        pytest.param("%chat ^", [f"%chat {name}" for name in LONG], id="nothing typed"),
        pytest.param("%chat -^", [f"%chat {name}" for name in LONG + SHORT], id="one dash"),
        pytest.param("%%chat --^", [f"%%chat {name}" for name in LONG], id="two dashes"),
        pytest.param("%chat --mo^", ["%chat --model"], id="long option"),
        pytest.param("%chat --NO-^", ["%chat --no-history", "%chat --no-think"], id="any case"),
        pytest.param(
            "%chat --new --te^ hello", ["%chat --new --temperature hello", "%chat --new --template hello"], id="prose"
        ),
        pytest.param("%%fix -m smollm2 --seed 3 --rep^", ["%%fix -m smollm2 --seed 3 --reproducible"], id="values"),
        pytest.param("%explain --system 'be brief' --us^", ["%explain --system 'be brief' --usage"], id="quoted value"),
        pytest.param("%chat --model=smollm2 --us^", ["%chat --model=smollm2 --usage"], id="value after ="),
        pytest.param("%chat -o n 2 --us^", ["%chat -o n 2 --usage"], id="two values"),
        pytest.param("%%doc -m smol^", ["%%doc -m smollm2"], id="model"),
        pytest.param(
            "%%test --model q^", ['%%test --model "Qwen 2.5"', "%%test --model qwen3"], id="model in any case"
        ),
        pytest.param("%chat --model=smol^", ["%chat --model=smollm2"], id="model after ="),
        pytest.param("%chat -m 'Qwen 2^", ["%chat -m 'Qwen 2.5'"], id="quote"),
        pytest.param("%chat -m 'Qwen ^'", ["%chat -m 'Qwen 2.5'"], id="closed quote"),
        pytest.param('%chat -m "the \\"b^', ['%chat -m "the \\"best\\""'], id="quotes in a name"),
        pytest.param("%chat -m gemma^ what is x?", ["%chat -m gemma3-270m what is x?"], id="middle of a line"),
        pytest.param("r = %chat -m smol^", ["r = %chat -m smollm2"], id="assignment"),
        pytest.param("d['k'], b.c = %chat -t po^", ["d['k'], b.c = %chat -t poem"], id="assignment to places"),
        pytest.param("  %chat -t r^", ["  %chat -t review"], id="indented"),
        pytest.param(
            "%chat -c ^", ["%chat -c " + name for name in ['"my thesis"', "chat-1", "chat-2"]], id="conversation"
        ),
        pytest.param(
            "%chat --conversation chat-^", [f"%chat --conversation chat-{n}" for n in "12"], id="its long name"
        ),
        pytest.param("%chat --format m^", ["%chat --format markdown"], id="format"),
        pytest.param("%chat -o top_^", [f"%chat -o top_{name}" for name in ("k", "logprobs", "p")], id="option"),
        pytest.param("%chat --option resp^", ["%chat --option response_format"], id="option of Model.chat"),
        pytest.param("%chat -O answ^", ["%chat -O answer", "%chat -O answer_2"], id="variable"),
        pytest.param("%chat -O _answ^", ["%chat -O _answer"], id="private variable"),
        pytest.param("%llm ^", [f"%llm {name}" for name in COMMANDS], id="commands"),
        pytest.param("%llm s^", ["%llm save", "%llm share", "%llm show", "%llm status"], id="command"),
        pytest.param("%llm share o^", ["%llm share off", "%llm share on"], id="switch"),
        pytest.param("%llm attach smol^", ["%llm attach smollm2"], id="model to attach to"),
        pytest.param("%llm api ^", ["%llm api --key"], id="key"),
        pytest.param("%llm load smol^", ["%llm load smollm2"], id="model to load"),
        pytest.param("%llm  unload  Q^", ['%llm  unload  "Qwen 2.5"', "%llm  unload  qwen3"], id="model to unload"),
        pytest.param("%llm show smol^", ["%llm show smollm2"], id="model to show"),
        pytest.param("%llm cp smol^", ["%llm cp smollm2"], id="model to copy"),
        pytest.param("%llm rm smol^", ["%llm rm smollm2"], id="model to remove"),
        pytest.param("%llm tune smol^", ["%llm tune smollm2"], id="model to tune"),
        pytest.param("%%llm unl^", ["%%llm unload"], id="command of a cell"),
        pytest.param("%llm history chat-1^", ["%llm history chat-1"], id="conversation to show"),
        pytest.param("%llm reset my^", ['%llm reset "my thesis"'], id="conversation to reset"),
        pytest.param("%llm save my^", ['%llm save "my thesis"'], id="conversation to save"),
    ],
)
def test_line_of_a_magic_is_completed(shell: Any, marked: str, lines: list[str]) -> None:
    shell.user_ns.update(answer=1, answer_2=2, _answer=3)
    ways = {"line": by_line, "cell": by_cell, "cell without Jedi": by_cell_without_jedi}
    assert {way: complete(shell, marked) for way, complete in ways.items()} == dict.fromkeys(ways, sorted(lines))


def ours(shell: Any, marked: str) -> list[str]:
    """What our matcher alone offers."""
    before, after = marked.split("^")
    lines = before.split("\n")
    context = CompletionContext("", before + after, len(lines[-1]), len(lines) - 1, None)
    [matcher] = shell.Completer.custom_matchers
    return [one.text for one in matcher(context)["completions"]]


@pytest.mark.parametrize(
    "marked",
    [
        pytest.param("%chat wha^", id="prose"),
        pytest.param("%chat what is --mo^", id="option in prose"),
        pytest.param("%chat -- --mo^", id="after the end of options"),
        pytest.param("%chat - ^", id="list"),
        pytest.param("%chat --nonsense x --mo^", id="after an unknown option"),
        pytest.param("%chat --nonsense^", id="unknown option"),
        pytest.param("%chat -m ./mod^", id="path"),
        pytest.param("%chat -m 'never closed --mo^", id="open quote"),
        pytest.param("%chat -m 'closed'^", id="closed quote"),
        pytest.param("%chat --seed ^", id="number"),
        pytest.param("%chat -o seed ^", id="value of an option"),
        pytest.param("%chat^", id="name of the magic"),
        pytest.param("%chatter --mo^", id="another magic"),
        pytest.param("%%timeit --mo^", id="magic of others"),
        pytest.param("x = 5 %chat --mo^", id="remainder"),
        pytest.param("# %chat --mo^", id="comment"),
        pytest.param("chat --mo^", id="Python"),
        pytest.param("^", id="empty cell"),
        pytest.param("%%chat\nwhat is %chat --mo^", id="text of a cell"),
        pytest.param("\n%%chat -m smollm2\n%chat --mo^", id="line of a text"),
        pytest.param("x = 1\n%%chat --mo^", id="cell magic in the middle"),
        pytest.param("%llm config ^", id="command without names"),
        pytest.param("%%llm create mario\n%llm rm ^", id="text below a magic"),
        pytest.param("%llm open ./^", id="file"),
        pytest.param("%llm save chat-1 ^", id="second argument"),
        pytest.param("%llm nonsense ^", id="unknown command"),
    ],
)
def test_everything_else_is_left_to_others(shell: Any, marked: str) -> None:
    shell.user_ns["what"] = 1
    assert ours(shell, marked) == []


def test_prose_is_completed_by_others(shell: Any) -> None:
    shell.user_ns["quarterly_sales"] = 1
    assert by_cell_without_jedi(shell, "%chat what is {quarter^") == ["%chat what is {quarterly_sales"]


@pytest.mark.parametrize("first", ["import os", "%%time", "%%fix -m x", "\n# text"], ids=ascii)
def test_line_of_a_cell_with_code_is_completed(shell: Any, first: str) -> None:
    assert by_cell(shell, f"{first}\nr = %chat -t po^\nprint(r)") == [f"{first}\nr = %chat -t poem\nprint(r)"]


def test_cell_magic_may_follow_empty_lines(shell: Any) -> None:
    assert by_cell(shell, "\n  \n%%chat -t po^\nhello") == ["\n  \n%%chat -t poem\nhello"]


def test_magic_without_flags_of_its_own_is_left_alone(shell: Any) -> None:
    register(shell, replace(SOURCES, flags={"fix": FLAGS[:1]}))
    assert ours(shell, "%chat --^") == []
    assert ours(shell, "%%fix --^") == [FLAGS[0].long]


@pytest.mark.parametrize("kind", ["models", "conversations", "templates"])
def test_source_that_fails_offers_nothing(shell: Any, capfd: pytest.CaptureFixture[str], kind: str) -> None:
    def fail() -> list[str]:
        raise RuntimeError("the disk is gone")

    flag = {"models": "-m", "conversations": "-c", "templates": "-t"}[kind]
    register(shell, replace(SOURCES, **{kind: fail}))  # type: ignore[arg-type]  # a name of one of the three
    assert by_cell(shell, f"%chat {flag} zzz^") == []
    assert ours(shell, f"%chat {flag} ^") == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("names", [[1, None], None, 3], ids=["no texts", "nothing", "no list"])
def test_source_of_wrong_values_offers_nothing(shell: Any, capfd: pytest.CaptureFixture[str], names: Any) -> None:
    register(shell, replace(SOURCES, models=lambda: names))
    assert by_line(shell, "%chat -m zzz^") == []
    assert capfd.readouterr() == ("", "")


def test_unprintable_names_are_not_offered(shell: Any) -> None:
    register(shell, replace(SOURCES, templates=lambda: ["a\nimport os", "\ud800", "ok", "\x1b[2J"]))
    assert ours(shell, "%chat -t ^") == ["ok"]


def test_slow_source_offers_what_it_gave_before(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "_PATIENCE_S", 0.01)
    asked: list[int] = []
    go_on = threading.Semaphore(0)

    def slow() -> list[str]:
        asked.append(len(asked))
        assert go_on.acquire(timeout=10)
        return [f"name-{asked[-1]}"]

    register(shell, replace(SOURCES, models=slow))
    assert [ours(shell, "%chat -m ^"), ours(shell, "%chat -m n^")] == [[], []]
    assert asked == [0], "the second did not ask again"
    go_on.release()
    join_completions()
    assert ours(shell, "%chat -m ^") == ["name-0"]
    go_on.release()
    join_completions()
    monkeypatch.undo()
    go_on.release()
    assert (ours(shell, "%chat -m ^"), asked) == (["name-2"], [0, 1, 2])


def join_completions() -> None:
    for thread in threading.enumerate():
        if thread.name == "nbllm-completion":
            thread.join(10)


def test_interrupt_while_waiting_offers_nothing(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    [matcher] = shell.Completer.custom_matchers
    monkeypatch.setattr(matcher.__self__, "_names", interrupt)
    assert ours(shell, "%chat -m ^") == []


def test_long_lines_take_no_time(shell: Any) -> None:
    for line in (
        " " * 100_000,
        "%chat -s '" + "\\" * 100_000,
        "%chat " + "-m x " * 2_000 + "y",
        "%llm" + " " * 100_000,
    ):
        ours(shell, line + "^")


def test_values_of_variables_are_not_looked_at(shell: Any) -> None:
    class Loud:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(name)

    shell.user_ns.update({"loud": Loud(), "sub class": 1, 3: 4})
    assert ours(shell, "%chat -O lou^") == ["loud"]


def state(shell: Any) -> dict[str, Any]:
    completer = shell.Completer
    return {
        "list": completer.custom_matchers,
        "matchers": list(completer.matchers),
        "settings": completer.trait_values(),
        "hooks": {key: list(value) for key, value in completer.custom_completers.strs.items()},
        "names": set(shell.user_ns),
    }


def mine(text: str) -> list[str]:
    return []


def test_unregister_leaves_the_shell_as_it_was(shell: Any) -> None:
    unregister(shell)
    shell.Completer.custom_matchers.append(mine)
    before = state(shell)
    register(shell, SOURCES)
    ours_and_mine = state(shell)
    assert len(ours_and_mine["matchers"]) == len(before["matchers"]) + 1
    by_cell(shell, "%chat -m smol^")
    unregister(shell)
    assert state(shell) == before
    unregister(shell)
    assert state(shell) == before
    assert shell.Completer.custom_matchers is before["list"]


def test_registering_again_replaces_the_sources(shell: Any) -> None:
    register(shell, replace(SOURCES, models=lambda: ["other"]))
    assert len(shell.Completer.custom_matchers) == 1
    assert by_line(shell, "%chat -m ^") == ["%chat -m other"]


def test_options_are_those_of_a_chat() -> None:
    with pytest.raises(ParameterError) as raised:
        Options.of({"zzzzzzzz": 1})
    assert raised.value.problem == unknown_option("zzzzzzzz", [*OPTIONS, "system"])


@pytest.mark.parametrize("name", OPTIONS)
def test_option_is_one_that_the_magic_takes(name: str) -> None:
    assert parse(f"-o {name} 1 hello").options == {name: 1}


def test_formats_are_offered(shell: Any) -> None:
    assert ours(shell, "%chat --format ^") == list(FORMATS)
