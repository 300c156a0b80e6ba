"""Ollama's routes that answer, over HTTP."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbllm.core import Chunk, EmbedRequest, GenerateRequest, Message, ToolCallDelta
from nbllm.errors import EngineDeadError
from nbllm.testing import ScriptedEngine, toy_engine
from tests.server.serving import TOY, Answer, Site, wait_until

API = "nbllm/ollama/api/"
_SCHEMA = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}},
    "required": ["on"],
    "additionalProperties": False,
}
_TOOL = {"type": "function", "function": {"name": "flip", "parameters": _SCHEMA}}


def _generate(site: Site, **more: Any) -> Answer:
    return site.post(
        API + "generate", {"model": TOY, "prompt": "Hi", "options": {"temperature": 0, "num_predict": 8}, **more}
    )


def _chat(site: Site, *messages: dict[str, Any], **more: Any) -> Answer:
    turns = list(messages) or [{"role": "user", "content": "Hi"}]
    options = {"temperature": 0, "num_predict": 8}
    return site.post(API + "chat", {"model": TOY, "messages": turns, "options": options, **more})


def _lines(answer: Answer) -> list[dict[str, Any]]:
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert answer.body.endswith(b"\n")
    return [json.loads(line) for line in answer.body.splitlines()]


def _failure(answer: Answer) -> tuple[int, str]:
    told = answer.json()
    assert set(told) == {"error"}
    return answer.status, told["error"]


def _asked(engine: ScriptedEngine) -> GenerateRequest:
    request = engine.requests[-1]
    assert isinstance(request, GenerateRequest)
    return request


# ---- generate


def test_stream_is_the_default(site: Site) -> None:
    site.scripted(["He", "llo"])
    *parts, last = _lines(_generate(site))
    assert "".join(part["response"] for part in parts) == "Hello"
    assert all(line["model"] == TOY and line["created_at"].endswith("Z") for line in (*parts, last))
    assert [line["done"] for line in (*parts, last)] == [False] * len(parts) + [True]
    assert (last["response"], last["done_reason"], last["eval_count"]) == ("", "stop", 5)
    assert last["total_duration"] >= last["load_duration"] > 0
    assert "Set-Cookie" not in _generate(site).headers


def test_whole_answer(site: Site) -> None:
    site.scripted(["He", "llo"])
    answer = _generate(site, stream=False)
    assert answer.headers["Content-Type"].startswith("application/json")
    assert (answer.json()["response"], answer.json()["done"]) == ("Hello", True)


def test_context_goes_on_where_the_answer_ended(site: Site) -> None:
    engine = site.scripted("One", "Two")
    context = _generate(site, stream=False).json()["context"]
    second = _generate(site, stream=False, prompt="More", context=context).json()
    tokens = _asked(engine).tokens or ()
    assert list(tokens[: len(context)]) == context
    assert engine.detokenize(tokens[len(context) :]) == "\nuser\nMore\nassistant\n"
    assert second["response"] == "Two"
    assert second["context"][: len(tokens)] == list(tokens)


def test_context_of_another_model_is_refused(site: Site) -> None:
    status, message = _failure(_generate(site, context=[5, 100_000]))
    assert (status, message.partition(":")[0]) == (400, "context")


def test_thinking_after_a_context_is_taken_out(site: Site) -> None:
    site.scripted(["<thi", "nk>2+2</think>", "4"])
    body = _generate(site, stream=False, context=[65]).json()
    assert (body["thinking"], body["response"]) == ("2+2", "4")


def test_raw_prompt_has_no_context(site: Site) -> None:
    engine = site.scripted("x")
    body = _generate(site, stream=False, raw=True, prompt="<|im_start|>user").json()
    assert "context" not in body
    assert _asked(engine).text == "<|im_start|>user"


def test_infill_without_the_tokens_for_it(site: Site) -> None:
    status, message = _failure(_generate(site, suffix="after"))
    assert (status, message) == (400, "this model has no fill-in-the-middle tokens: leave suffix out")


def test_go_template_is_logged(site: Site) -> None:
    site.scripted("x")
    assert _generate(site, template="{{ .Prompt }}").status == 200
    assert any("the model's own is used" in line for line in site.log.lines)


# ---- chat


def test_chat_stream(site: Site) -> None:
    site.scripted(["春", "天"])
    messages = [
        {"role": "user", "content": "你好"},
        {"role": "assistant", "content": "你好"},
        {"role": "user", "content": "写"},
    ]
    *parts, last = _lines(_chat(site, *messages, stream=True))
    assert "".join(part["message"]["content"] for part in parts) == "春天"
    assert parts[0]["message"]["role"] == "assistant"
    assert last["message"] == {"role": "assistant", "content": ""}
    assert "context" not in last


def test_tools_are_called_with_objects(site: Site) -> None:
    site.cast.engines.append(toy_engine(context_length=4096))
    engine = site.scripted(
        [
            Chunk(tool_calls=(ToolCallDelta(0, "c", "flip", '{"on":'),)),
            Chunk(tool_calls=(ToolCallDelta(0, arguments="true}"),)),
        ]
    )
    site.cast.engines.reverse()
    message = _chat(site, tools=[_TOOL], stream=False).json()["message"]
    assert message["tool_calls"] == [{"id": "c", "function": {"index": 0, "name": "flip", "arguments": {"on": True}}}]
    assert [tool.name for tool in _asked(engine).tools] == ["flip"]


def test_format_is_guaranteed(site: Site) -> None:
    body = _chat(site, format=_SCHEMA, stream=False, options={"num_predict": 64, "temperature": 0}).json()
    assert isinstance(json.loads(body["message"]["content"])["on"], bool)


@pytest.mark.parametrize("think", [True, "high"])
def test_thinking_model_is_needed_to_think(site: Site, think: Any) -> None:
    assert _failure(_chat(site, think=think)) == (400, '"toy" does not support thinking: leave think out')


def test_unwanted_thinking_is_left_out(site: Site) -> None:
    site.scripted([Chunk(reasoning="Hm"), "4"])
    assert _chat(site, think=False, stream=False).json()["message"] == {"role": "assistant", "content": "4"}


def test_likelihoods(site: Site) -> None:
    body = _chat(site, logprobs=True, top_logprobs=2, stream=False).json()
    assert len(body["logprobs"]) == body["eval_count"] == 8
    assert len(body["logprobs"][0]["top_logprobs"]) == 2


# ---- what does not fit


def test_oldest_turns_go_first_and_system_stays(site: Site) -> None:
    engine = ScriptedEngine()
    engine.info = replace(engine.info, context_length=200)
    site.cast.engines.append(engine)
    engine.enqueue("ok")
    turns = [{"role": role, "content": f"{role} {n} " + "x" * 40} for n in range(5) for role in ("user", "assistant")]
    messages = [{"role": "system", "content": "S"}, *turns, {"role": "user", "content": "last"}]
    assert _chat(site, *messages).status == 200
    kept = _asked(engine).messages or ()
    assert (kept[0], kept[-1]) == (Message("system", "S"), Message("user", "last"))
    assert kept[1].role == "user"
    assert 2 < len(kept) < len(messages)
    assert len(engine.render(_asked(engine)).tokens) < 200


def test_last_turn_loses_its_beginning(site: Site) -> None:
    engine = ScriptedEngine()
    engine.info = replace(engine.info, context_length=100)
    site.cast.engines.append(engine)
    engine.enqueue("ok")
    assert _generate(site, prompt="a" * 200 + "the question").status == 200
    (turn,) = _asked(engine).messages or ()
    assert turn.content.endswith("the question")
    assert len(turn.content) < 100


def test_raw_prompt_keeps_its_first_tokens_and_its_end(site: Site) -> None:
    engine = ScriptedEngine()
    engine.info = replace(engine.info, context_length=100)
    site.cast.engines.append(engine)
    engine.enqueue("ok")
    _generate(site, prompt="AB" + "x" * 200 + "YZ", raw=True, options={"num_keep": 3, "num_predict": 8})
    tokens = _asked(engine).tokens or ()
    assert engine.detokenize(tokens).startswith("ABx")  # after the token that begins every prompt
    assert engine.detokenize(tokens).endswith("xYZ")
    assert len(tokens) < 100


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"truncate": False, "prompt": "x" * 600}, "the prompt has 620 tokens and the context holds 512"),
        ({"truncate": False, "options": {"num_ctx": 10}}, "the prompt has 22 tokens and num_ctx is 10"),
        ({"system": "x" * 600}, "tokens and the context holds 512"),
    ],
)
def test_prompt_that_may_not_be_cut(site: Site, more: dict[str, Any], said: str) -> None:
    status, message = _failure(_generate(site, **more))
    assert status == 400
    assert said in message


def test_answer_ends_where_num_ctx_does(site: Site) -> None:
    body = _generate(site, stream=False, options={"num_ctx": 30, "num_predict": -1, "temperature": 0}).json()
    assert (body["prompt_eval_count"] + body["eval_count"], body["done_reason"]) == (30, "length")


def test_longer_num_ctx_loads_again_with_it(site: Site) -> None:
    site.service.router._lengths.clear()
    site.cast.engines += [toy_engine(), toy_engine(context_length=1024)]
    for _ in range(2):
        assert _generate(site, options={"num_ctx": 1000, "num_predict": 1}).status == 200
    assert _generate(site, options={"num_ctx": 100, "num_predict": 1}).status == 200
    assert [spec.options.context_length for spec in site.cast.specs] == [None, 1024]


@pytest.mark.parametrize(("num_ctx", "loaded"), [(1000, 1024), (512, 512), (100, 512)])
def test_context_of_the_settings_is_not_loaded_where_it_is_too_short(tmp_path: Path, num_ctx: int, loaded: int) -> None:
    with Site(tmp_path, context_length=512) as site:
        site.cast.engines.append(toy_engine(context_length=loaded))
        assert _generate(site, options={"num_ctx": num_ctx, "num_predict": 1}).status == 200
        assert [spec.options.context_length for spec in site.cast.specs] == [loaded]


# ---- loading and unloading


@pytest.mark.parametrize(("path", "said"), [("generate", {"response": ""}), ("chat", {"messages": None})])
def test_empty_prompt_loads_and_unloads(site: Site, path: str, said: dict[str, Any]) -> None:
    loaded = site.post(API + path, {"model": TOY})
    assert (loaded.json()["done_reason"], loaded.json()["done"]) == ("load", True)
    assert len(site.cast.runners) == 1
    unloaded = site.post(API + path, {"model": f"{TOY}:latest", "keep_alive": 0})
    assert unloaded.json()["done_reason"] == "unload"
    wait_until(lambda: not site.cast.runners[0].is_alive)


def test_keep_alive_of_0_unloads_after_the_answer(site: Site) -> None:
    assert _generate(site, keep_alive=0, stream=False).json()["response"]
    wait_until(lambda: not site.cast.runners[0].is_alive)


# ---- vectors


def test_unit_vectors(site: Site) -> None:
    body = site.post(API + "embed", {"model": TOY, "input": ["a", "b"]}).json()
    assert np.allclose(np.linalg.norm(body["embeddings"], axis=1), 1)
    assert body["prompt_eval_count"] == 4
    assert site.post(API + "embed", {"model": TOY, "input": "a"}).json()["embeddings"] == body["embeddings"][:1]
    cut = site.post(API + "embed", {"model": TOY, "input": "a", "dimensions": 3}).json()["embeddings"][0]
    assert len(cut) == 3
    assert np.linalg.norm(cut) == pytest.approx(1, abs=1e-5)


def test_old_vector_is_the_models_own(site: Site) -> None:
    (unit,) = site.post(API + "embed", {"model": TOY, "input": "a"}).json()["embeddings"]
    raw = site.post(API + "embeddings", {"model": TOY, "prompt": "a"}).json()["embedding"]
    length = np.linalg.norm(raw)
    assert length != pytest.approx(1, abs=1e-3)
    assert np.allclose(np.array(raw) / length, unit, atol=1e-5)


def test_vectors_of_nothing_load(site: Site) -> None:
    assert site.post(API + "embed", {"model": TOY, "input": []}).json()["embeddings"] == []
    assert site.post(API + "embeddings", {"model": TOY, "prompt": ""}).json() == {"embedding": []}
    assert len(site.cast.runners) == 1


def test_long_text_is_cut_at_its_end(site: Site) -> None:
    long = "x" * 450 + "y" * 450
    body = site.post(API + "embed", {"model": TOY, "input": ["a", long]}).json()
    assert len(body["embeddings"]) == 2
    assert body["prompt_eval_count"] <= 2 + 512
    status, message = _failure(site.post(API + "embed", {"model": TOY, "input": long, "truncate": False}))
    assert status == 400
    assert "901 tokens" in message


def test_vectors_are_asked_for_as_such(site: Site) -> None:
    engine = site.scripted()
    site.post(API + "embeddings", {"model": TOY, "prompt": "a"})
    assert engine.requests == [EmbedRequest(texts=("a",), unit=False)]


# ---- failures


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "missing request body"),
        (b"{", 400, "the body is not valid JSON"),
        (b"[]", 400, "must be a JSON object"),
        ({"prompt": "x"}, 400, "model is required"),
        ({"model": "nothing", "prompt": "x"}, 404, "model 'nothing' not found"),
        ({"model": "../../etc/passwd", "prompt": "x"}, 404, "not found"),
        ({"model": "broken", "prompt": "x"}, 404, "cannot be loaded"),
        ({"model": TOY, "prompt": "x", "images": ["aGk="]}, 400, "images"),
        ({"model": TOY, "prompt": "x", "options": {"temperature": "hot"}}, 400, "options.temperature"),
        ({"model": TOY, "prompt": "x", "format": {"type": "nothing"}}, 400, "nothing"),
        ({"model": TOY, "prompt": "x", "raw": True, "system": "y"}, 400, "raw mode"),
    ],
)
def test_failure_has_ollamas_shape(site: Site, body: Any, status: int, said: str) -> None:
    answer = site.post(API + "generate", body)
    assert _failure(answer)[0] == status
    assert said in _failure(answer)[1]
    assert str(site.folder) not in _failure(answer)[1]


def test_failure_in_the_middle_of_a_stream_is_a_line(site: Site) -> None:
    site.scripted(["some"], until_cancelled=True)
    with site.raw_post(API + "generate", {"model": TOY, "prompt": "x"}) as connection:
        heard = b""
        while b'"response":"some"' not in heard:
            heard += connection.recv(4096)
        site.cast.runners[0].die()
        while b'{"error":"' not in heard:
            heard += connection.recv(4096)
    assert " status=503 " in site.log.access_lines()[-1]


def test_failure_before_the_first_token_has_its_status(site: Site) -> None:
    site.scripted(EngineDeadError("gone"))
    site.scripted(EngineDeadError("gone again"))
    answer = _generate(site)
    assert answer.status == 503
    assert answer.headers["Retry-After"]
    assert _failure(answer)[1]


def test_full_queue_is_busy(site: Site) -> None:
    site.service.limits = replace(site.service.limits, max_queue=0)
    answer = _generate(site)
    assert _failure(answer)[0] == 503
    assert "server busy" in _failure(answer)[1]
    assert answer.headers["Retry-After"]


def test_client_that_goes_away_ends_the_request(site: Site) -> None:
    engine = site.scripted(["a"], until_cancelled=True)
    connection = site.raw_post(API + "generate", {"model": TOY, "prompt": "x"})
    wait_until(lambda: engine.tickets)
    connection.close()
    wait_until(lambda: engine.tickets[0].is_done)
    assert " status=499 " in site.log.access_lines()[-1]


def test_no_content_type_is_needed(site: Site) -> None:
    """As curl sends it."""
    site.scripted("x")
    body = json.dumps({"model": TOY, "prompt": "Hi", "stream": False}).encode()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert site.post(API + "generate", body, headers=kind).json()["response"] == "x"


def test_what_was_used_is_logged(site: Site) -> None:
    site.scripted(["He", "llo"])
    _chat(site)
    line = site.log.access_lines()[-1]
    assert f" model={TOY} status=200 prompt=" in line
    assert " completion=5 " in line
