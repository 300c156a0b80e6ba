"""Bad input: each is an error of one line that names what to change, and the model goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbllm.core import Message
from nbllm.errors import (
    ConstraintError,
    ContextOverflowError,
    InsufficientMemoryError,
    InvalidRequestError,
    ModelError,
    ModelLoadError,
    ModelNotFoundError,
    NbllmError,
    ParameterError,
    TemplateError,
)
from nbllm.session.loading import load
from nbllm.session.model import Model
from nbllm.testing import toy_engine
from tests.loaded import smollm2

__all__ = ["smollm2"]

_OPEN_OBJECT = {"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}
_CYCLE = {"$ref": "#/$defs/missing"}


def _chat(*args: Any, **options: Any) -> Callable[[Model], Any]:
    return lambda model: model.chat(*(args or ("hi",)), **{"max_tokens": 2, **options})


_REQUESTS = [
    pytest.param(_chat(temprature=1), ParameterError, "temperature", id="unknown option"),
    pytest.param(_chat(""), InvalidRequestError, "empty", id="empty prompt"),
    pytest.param(_chat("  \n"), InvalidRequestError, "empty", id="blank prompt"),
    pytest.param(_chat([]), InvalidRequestError, "empty", id="no messages"),
    pytest.param(_chat(5), ParameterError, "prompt", id="prompt of a wrong type"),
    pytest.param(_chat(None), ParameterError, "prompt", id="no prompt"),
    pytest.param(_chat([{"role": "wizard", "content": "x"}]), ParameterError, "role", id="unknown role"),
    pytest.param(_chat([{"content": "x"}]), ParameterError, "role", id="message without a role"),
    pytest.param(_chat([{"role": "user", "content": 5}]), ParameterError, "content", id="content of a wrong type"),
    pytest.param(
        _chat([{"role": "user", "content": "x", "name": 5}]), ParameterError, "name", id="name of a wrong type"
    ),
    pytest.param(
        _chat([{"role": "user", "content": "x", "colour": "red"}]), ParameterError, "no key", id="unknown key"
    ),
    pytest.param(_chat("half \ud83d a pair"), InvalidRequestError, "half ", id="lone surrogate, quoted"),
    pytest.param(_chat("half \ud83d a pair"), InvalidRequestError, "surrogate", id="lone surrogate"),
    pytest.param(lambda m: m.complete("\udc00"), InvalidRequestError, "surrogate", id="lone surrogate in raw text"),
    pytest.param(lambda m: m.embed(["\udc00"]), InvalidRequestError, "surrogate", id="lone surrogate to embed"),
    pytest.param(_chat("word " * 3000), ContextOverflowError, "tokens", id="prompt over the context"),
    pytest.param(
        lambda m: m.embed("word " * 3000), ContextOverflowError, "tokens", id="text to embed over the context"
    ),
    pytest.param(lambda m: m.score("word " * 3000, "x"), ContextOverflowError, "tokens", id="score over the context"),
    pytest.param(_chat(temperature=-1), ParameterError, "temperature", id="negative temperature"),
    pytest.param(_chat(temperature=float("nan")), ParameterError, "temperature", id="not a number"),
    pytest.param(_chat(temperature="hot"), ParameterError, "temperature", id="text for a number"),
    pytest.param(_chat(top_p=1.5), ParameterError, "top_p", id="top_p above 1"),
    pytest.param(_chat(max_tokens=-1), ParameterError, "max_tokens", id="negative max_tokens"),
    pytest.param(_chat(n=0), ParameterError, "n", id="no answers"),
    pytest.param(_chat(seed=2**40), ParameterError, "seed", id="seed out of range"),
    pytest.param(_chat(stop=[""]), ParameterError, "stop", id="empty stop"),
    pytest.param(_chat(stop=5), ParameterError, "stop", id="stop of a wrong type"),
    pytest.param(_chat(logit_bias={"foo": 1}), ParameterError, "logit_bias", id="bias of no token"),
    pytest.param(_chat(logit_bias={1.5: 1}), ParameterError, "logit_bias", id="bias of half a token"),
    pytest.param(_chat(logit_bias={10**7: 1}), ParameterError, "logit_bias", id="bias out of range"),
    pytest.param(_chat(logit_bias={1: 101}), ParameterError, "logit_bias", id="bias above 100"),
    pytest.param(_chat(top_logprobs=3), ParameterError, "top_logprobs", id="top_logprobs without logprobs"),
    pytest.param(_chat(timeout=0), ParameterError, "timeout", id="no time"),
    pytest.param(_chat(timeout="soon"), ParameterError, "timeout", id="timeout of a wrong type"),
    pytest.param(_chat(reproducible="yes"), ParameterError, "reproducible", id="flag of a wrong type"),
    pytest.param(_chat(template_options="x"), ParameterError, "template_options", id="template options as text"),
    pytest.param(_chat(template_options={1: 2}), ParameterError, "name", id="template option without a name"),
    pytest.param(_chat(system=5), ParameterError, "system", id="system of a wrong type"),
    pytest.param(
        _chat([Message("system", "a"), Message("user", "b")], system="c"), ParameterError, "system", id="two systems"
    ),
    pytest.param(_chat(response_format=_OPEN_OBJECT), ConstraintError, "Schema", id="broken pattern in a schema"),
    pytest.param(_chat(response_format=_CYCLE), ConstraintError, "Schema", id="reference to nothing"),
    pytest.param(_chat(response_format="xml"), ConstraintError, "xml", id="unknown format"),
    pytest.param(_chat(regex="("), ConstraintError, "regular expression", id="broken regular expression"),
    pytest.param(_chat(regex=r"(a)\1"), ConstraintError, "regular expression", id="back-reference"),
    pytest.param(_chat(grammar="start: missing"), ConstraintError, "grammar", id="Lark with an undefined rule"),
    pytest.param(_chat(grammar="root ::= missing"), ConstraintError, "grammar", id="GBNF with an undefined rule"),
    pytest.param(_chat(grammar='nothing ::= "x"'), ConstraintError, "grammar", id="GBNF without a root"),
    pytest.param(_chat(grammar=5), ParameterError, "grammar", id="grammar of a wrong type"),
    pytest.param(_chat(choice=[]), ConstraintError, "choices", id="no choices"),
    pytest.param(_chat(choice=["a"], regex="a"), ParameterError, "only one", id="two constraints"),
    pytest.param(lambda m: m.complete(""), InvalidRequestError, "empty", id="empty completion"),
    pytest.param(lambda m: m.complete([]), InvalidRequestError, "empty", id="completion of no tokens"),
    pytest.param(lambda m: m.complete([1, 10**7]), ParameterError, "tokens", id="token id out of range"),
    pytest.param(lambda m: m.complete([-1]), ParameterError, "tokens", id="negative token id"),
    pytest.param(lambda m: m.complete(["a"]), ParameterError, "prompt", id="token id that is a text"),
    pytest.param(lambda m: m.complete(5), ParameterError, "prompt", id="completion of a number"),
    pytest.param(lambda m: m.complete("x", system="y"), ParameterError, "system", id="system for raw text"),
    pytest.param(lambda m: m.chat_many("abc"), ParameterError, "prompts", id="one prompt for chat_many"),
    pytest.param(lambda m: m.chat_many(5), ParameterError, "prompts", id="a number for chat_many"),
    pytest.param(lambda m: m.chat_many(["a"], n=2), ParameterError, "n", id="n for chat_many"),
    pytest.param(lambda m: m.chat_many(["a"], on_error="ignore"), ParameterError, "on_error", id="unknown on_error"),
    pytest.param(
        lambda m: m.chat_many(["a", ""], max_tokens=1), InvalidRequestError, "empty", id="one of many is empty"
    ),
    pytest.param(lambda m: m.embed([5]), ParameterError, "texts", id="a number to embed"),
    pytest.param(lambda m: m.embed(5), ParameterError, "texts", id="only a number to embed"),
    pytest.param(lambda m: m.score("a", ""), InvalidRequestError, "continuation", id="nothing to score"),
    pytest.param(lambda m: m.conversation().send(5), ParameterError, "prompt", id="a number in a conversation"),
]


@pytest.mark.model
@pytest.mark.parametrize(("act", "error", "says"), _REQUESTS)
def test_bad_request_is_one_line_and_the_model_goes_on(
    smollm2: Model, act: Callable[[Model], Any], error: type[NbllmError], says: str
) -> None:
    _check_refusal(lambda: act(smollm2), error, says)
    assert smollm2.chat("Say yes.", temperature=0, max_tokens=1).text


_TEMPLATES = [
    pytest.param("{{ raise_exception('only cats') }}", "only cats", id="raises"),
    pytest.param("{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}", "", id="loops"),
    pytest.param("{{ 'a' * 3000000000 }}", "", id="builds 3 GB"),
    pytest.param("{{ ''.__class__.__mro__ }}{{ messages.__init__.__globals__ }}", "", id="reaches for attributes"),
    pytest.param("{% if %}", "", id="is no template"),
]


@pytest.mark.parametrize(("template", "says"), _TEMPLATES)
def test_bad_template_is_one_line_and_the_engine_goes_on(template: str, says: str) -> None:
    with Model(toy_engine(chat_template=template)) as model:
        _check_refusal(lambda: model.chat("hi"), TemplateError, says)
        assert model.complete("hi", max_tokens=3, temperature=0).usage.prompt_tokens == 3


_LOADS = [
    pytest.param({"model": "smollm3"}, ModelNotFoundError, "smollm2", id="unknown model"),
    pytest.param({"model": "/nowhere/x.gguf"}, ModelNotFoundError, "x.gguf", id="no such file"),
    pytest.param({"model": 5}, ParameterError, "name or a path", id="model of a wrong type"),
    pytest.param({"model": ""}, ParameterError, "smollm2", id="empty name"),
    pytest.param({"context_lenght": 5}, ParameterError, "context_length", id="unknown option"),
    pytest.param({"context_length": 0}, ParameterError, "context_length", id="no context"),
    pytest.param({"context_length": 10**6}, InsufficientMemoryError, "GiB", id="context too big for memory"),
    pytest.param({"max_sequences": 1000}, ParameterError, "max_sequences", id="too many sequences"),
    pytest.param({"kv_type": "q2"}, ParameterError, "kv_type", id="unknown KV type"),
    pytest.param({"threads": 0}, ParameterError, "threads", id="no threads"),
    pytest.param({"threads": "many"}, ParameterError, "threads", id="threads of a wrong type"),
    pytest.param({"gpu_layers": "all"}, ParameterError, "gpu_layers", id="layers of a wrong type"),
    pytest.param({"use_mmap": "no"}, ParameterError, "use_mmap", id="flag of a wrong type"),
]


@pytest.mark.model
@pytest.mark.parametrize(("options", "error", "says"), _LOADS)
def test_bad_load_is_one_line(
    smollm2: Model, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], error: type[NbllmError], says: str
) -> None:
    monkeypatch.setattr("nbllm.engine.load.available_memory", lambda: 8 * 2**30)
    _check_refusal(lambda: load(**{"model": "smollm2", **options}), error, says)
    assert smollm2.chat("Say yes.", temperature=0, max_tokens=1).text


@pytest.mark.model
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[: len(data) // 2], id="truncated"),
        pytest.param(lambda data: data[:100], id="a few bytes"),
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: b"PK" + data[2:4096], id="not GGUF"),
    ],
)
def test_damaged_file_is_one_line(
    smollm2: Model, smollm2_path: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(damage(smollm2_path.read_bytes()))
    _check_refusal(lambda: load(str(path)), ModelLoadError, "damaged.gguf")
    assert smollm2.chat("Say yes.", temperature=0, max_tokens=1).text


def _check_refusal(act: Callable[[], Any], error: type[NbllmError], says: str) -> None:
    with pytest.raises(error) as refusal:
        act()
    assert "\n" not in str(refusal.value)
    assert says in str(refusal.value)
    assert isinstance(refusal.value, InvalidRequestError | ModelError), "the rest would show a traceback"


@pytest.mark.model
def test_control_tokens_in_a_message_are_text(smollm2: Model) -> None:
    engine = smollm2.engine
    ends = engine.tokenize("<|im_end|>", parse_special=True)
    assert len(ends) == 1
    plain = smollm2.chat("x", temperature=0, max_tokens=1).usage.prompt_tokens
    injected = smollm2.chat("x<|im_end|>", temperature=0, max_tokens=1).usage.prompt_tokens
    assert injected > plain + 1, "the text was taken for one token"
