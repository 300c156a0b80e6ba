from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.errors import InvalidRequestError
from nbllm.notebook.widget.attachments import Attachment
from nbllm.notebook.widget.commands import FORMATS, MAX_TEXT_LENGTH, Commands
from nbllm.notebook.widget.export import FORMATS as EXPORTED
from nbllm.notebook.widget.talk import Talk


class Recorder:
    """A Talk and a page that do nothing but remember what they were asked."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._problem = problem

    def __getattr__(self, name: str) -> Any:
        def call(*values: Any) -> None:
            self.calls.append((name, *values))
            if self._problem is not None:
                raise self._problem

        return call


def obeyed(message: object) -> tuple[str, list[tuple[Any, ...]]]:
    recorder = Recorder()
    return Commands(cast("Talk", recorder), recorder).obey(message), recorder.calls


@pytest.mark.parametrize(
    ("message", "call"),
    [
        pytest.param({"do": "hello"}, ("hello",), id="hello"),
        pytest.param({"do": "send", "text": "Why?"}, ("send", "Why?", ()), id="send"),
        pytest.param(
            {"do": "send", "text": "", "attachments": [{"name": "a.txt", "type": "text/plain", "text": "b"}]},
            ("send", "", (Attachment("a.txt", "b"),)),
            id="send a file",
        ),
        pytest.param({"do": "stop"}, ("stop",), id="stop"),
        pytest.param({"do": "regenerate", "turn": 3}, ("regenerate", 3), id="regenerate"),
        pytest.param({"do": "regenerate"}, ("regenerate", None), id="regenerate the last"),
        pytest.param({"do": "edit", "turn": 3, "text": "How?"}, ("edit", 3, "How?"), id="edit"),
        pytest.param({"do": "branch", "turn": 3}, ("branch", 3), id="branch"),
        pytest.param({"do": "new"}, ("new",), id="new"),
        pytest.param({"do": "open", "name": "draft"}, ("open", "draft"), id="open"),
        pytest.param({"do": "rename", "name": "final"}, ("rename", "final"), id="rename"),
        pytest.param({"do": "model", "name": "smollm2"}, ("choose_model", "smollm2"), id="model"),
        pytest.param(
            {"do": "settings", "values": {"temperature": 0.2, "seed": None, "stop": ["a"]}},
            ("set_options", {"temperature": 0.2, "seed": None, "stop": ["a"]}),
            id="settings",
        ),
        pytest.param({"do": "export", "format": "jsonl"}, ("export", "jsonl"), id="export"),
        pytest.param({"do": "freeze"}, ("freeze",), id="freeze"),
    ],
)
def test_message_is_done(message: dict[str, Any], call: tuple[Any, ...]) -> None:
    assert obeyed(message) == ("", [call])


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        pytest.param(None, "must be an object", id="none"),
        pytest.param([{"do": "stop"}], "must be an object", id="list"),
        pytest.param({}, "do: must be one of hello", id="no command"),
        pytest.param({"do": "eval"}, "do: must be one of hello", id="unknown command"),
        pytest.param({"do": ["stop"]}, "do: must be one of hello", id="command is a list"),
        pytest.param({"do": "send"}, "text: must be a text", id="no text"),
        pytest.param({"do": "send", "text": 3}, "text: must be a text", id="text is a number"),
        pytest.param({"do": "send", "text": "a" * (MAX_TEXT_LENGTH + 1)}, "text: has 1,000,001", id="long text"),
        pytest.param({"do": "send", "text": "a", "attachments": "b"}, "attachments", id="attachments are a text"),
        pytest.param({"do": "send", "text": "a", "attachments": [None]}, "attachments", id="attachment is nothing"),
        pytest.param({"do": "edit", "text": "a"}, "turn: must be the number", id="no turn"),
        pytest.param({"do": "edit", "turn": 1}, "text: must be a text", id="edit without a text"),
        pytest.param({"do": "branch", "turn": True}, "turn: must be the number", id="turn is true"),
        pytest.param({"do": "branch", "turn": 1.0}, "turn: must be the number", id="turn is a float"),
        pytest.param({"do": "branch", "turn": 0}, "turn: must be the number", id="turn is zero"),
        pytest.param({"do": "open", "name": None}, "name: must be a text", id="name is nothing"),
        pytest.param({"do": "model", "name": "a" * 5000}, "name: has 5,000", id="long name"),
        pytest.param({"do": "settings", "values": []}, "values: must be an object", id="settings are a list"),
        pytest.param(
            {"do": "settings", "values": dict.fromkeys(map(str, range(101)))}, "values: must be", id="many settings"
        ),
        pytest.param({"do": "export", "format": "../etc"}, "format: must be one of", id="unknown format"),
    ],
)
def test_malformed_message_is_refused_in_one_line(message: object, reason: str) -> None:
    refused, calls = obeyed(message)
    assert reason in refused
    assert "\n" not in refused
    assert calls == []


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {"do": st.sampled_from(["send", "edit", "branch", "regenerate", "settings", "export", "open", "model"])},
        optional=dict.fromkeys(("text", "turn", "name", "values", "format", "attachments"), _JSON),
    )
)
def test_no_message_raises(message: dict[str, Any]) -> None:
    refused, calls = obeyed(message)
    assert bool(refused) != bool(calls)
    assert "went wrong inside" not in refused


def test_refusal_of_the_talk_is_one_line() -> None:
    recorder = Recorder(InvalidRequestError("wait for the answer,\nor stop it"))
    assert Commands(cast("Talk", recorder), recorder).obey({"do": "new"}) == "wait for the answer, or stop it"


def test_defect_is_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(KeyError("x"))
    refused = Commands(cast("Talk", recorder), recorder).obey({"do": "stop"})
    assert "KeyError" in refused
    assert "KeyError: 'x'" in caplog.text


def test_half_characters_of_a_page_are_replaced() -> None:
    assert obeyed({"do": "send", "text": "a\ud83d"})[1] == [("send", "a\N{REPLACEMENT CHARACTER}", ())]
    values = {"system": "a\ud83d", "stop": ["b\ud83d"], "c\ud83d": None}
    (call,) = obeyed({"do": "settings", "values": values})[1]
    assert repr(call).count("\N{REPLACEMENT CHARACTER}") == 3


def test_formats_are_those_that_can_be_exported() -> None:
    assert sorted(FORMATS) == sorted(EXPORTED)
