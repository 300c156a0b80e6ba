"""Input that kills other servers: each row of FACTS.md B as a request, and the list of the issue."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.server.serving import CHAT, COMPLETIONS, EMBEDDINGS, TOY, Site, chat, completion, wait_until
from tests.store.gguf_writer import tiny_model, write


@pytest.fixture(autouse=True)
def _goes_on(site: Site) -> Any:
    """Whatever was sent, the server answers the next one."""
    yield
    wait_until(lambda: site.in_flight == 0)
    assert site.post(CHAT, chat()).status == 200
    assert site.cast.runners[-1].is_alive
    assert not [line for line in site.log.lines if "Traceback" in line]


def _refused(site: Site, path: str, body: Any, param: str | None = None) -> dict[str, Any]:
    answer = site.post(path, body)
    assert answer.status == 400, (answer.status, answer.body[:300])
    error = answer.error
    assert param is None or error["param"] == param, error
    assert len(error["message"]) < 1000
    return error


# ---- what crashes llama-cpp-python


@pytest.mark.parametrize(
    "grammar",
    ["nothing", 'other ::= "a"', "root ::= root | root", "root ::= missing", "\x00", "root ::= [z-a]", "("],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_grammar_that_is_none(site: Site, grammar: str, stream: bool) -> None:
    assert _refused(site, CHAT, chat(grammar=grammar, stream=stream))["code"] == "invalid_constraint"


@pytest.mark.parametrize("tokens", [[262], [-1], [2**31], [2**63], [1.5], [True]])
def test_a_prompt_of_ids_that_no_model_has(site: Site, tokens: list[Any]) -> None:
    _refused(site, COMPLETIONS, completion(tokens))


@pytest.mark.parametrize("key", ["262", "-1", "foo", "99999999999999999999", ""])
def test_a_bias_for_what_is_no_token(site: Site, key: str) -> None:
    _refused(site, CHAT, chat(logit_bias={key: 1}), "logit_bias")


@pytest.mark.parametrize("prompt", ["", [""], [], [[]], ["a", ""]])
def test_an_empty_prompt(site: Site, prompt: Any) -> None:
    _refused(site, COMPLETIONS, completion(prompt))


@pytest.mark.parametrize("body", [chat, completion])
def test_no_tokens_are_not_endless_ones(site: Site, body: Any) -> None:
    answer = site.post(CHAT if body is chat else COMPLETIONS, body(max_tokens=0))
    assert answer.status == 400 or answer.json()["usage"]["completion_tokens"] == 0


@pytest.mark.parametrize("stop", [[""], "", ["a", ""]])
def test_an_empty_stop_text(site: Site, stop: Any) -> None:
    _refused(site, CHAT, chat(stop=stop), "stop")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "("},
        {"$ref": "#/nowhere"},
        {"$ref": "http://localhost/schema"},
        {"type": "nothing"},
        {"type": "integer", "minimum": 3, "maximum": 1},
        False,
    ],
    ids=["pattern", "ref", "remote ref", "type", "empty range", "nothing allowed"],
)
def test_a_schema_that_cannot_be_followed_is_not_dropped(site: Site, schema: Any) -> None:
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    _refused(site, CHAT, chat(response_format=shape))


@pytest.mark.parametrize("text", ["\\ud800", "a\\udfffb"])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, EMBEDDINGS, "v1/tokenize"])
def test_half_a_surrogate_pair(site: Site, path: str, text: str) -> None:
    bodies = {
        CHAT: '{"model":"toy","messages":[{"role":"user","content":"%s"}]}',
        COMPLETIONS: '{"model":"toy","prompt":"%s"}',
        EMBEDDINGS: '{"model":"toy","input":"%s"}',
        "v1/tokenize": '{"model":"toy","content":"%s"}',
    }
    _refused(site, path, (bodies[path] % text).encode())


def test_a_prompt_that_fills_the_context_to_the_brim(site: Site) -> None:
    for length in (509, 510, 511, 512):  # with the token that begins every prompt
        answer = site.post(COMPLETIONS, completion("x" * length, max_tokens=4))
        assert answer.status in (200, 400)
        assert answer.status == 200 or answer.error["code"] == "context_length_exceeded"


def test_a_file_that_is_no_model(site: Site) -> None:
    answer = site.post(CHAT, chat(model="broken"))
    assert answer.status in (200, 404)  # with fake runners nobody looks into the file


# ---- JSON


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"1",
        b"{'model': 'toy'}",
        b'{"model":"toy"}}',
        b'{"model":"toy","messages":[{"role":"user","content":"x"}],}',
        b"\xff\xfe{\x00}\x00",
        b'{"model":"\xff"}',
        b'{"model":"toy","messages":' + b"[" * 10**6 + b"]" * 10**6 + b"}",
        b'{"a":' * 10**5 + b"1" + b"}" * 10**5,
        b'{"model":"toy","temperature":NaN,"messages":[{"role":"user","content":"x"}]}',
        b'{"model":"toy","temperature":Infinity,"messages":[{"role":"user","content":"x"}]}',
        b'{"model":"toy","temperature":1e999,"messages":[{"role":"user","content":"x"}]}',
        b'{"model":"toy","seed":' + b"9" * 5000 + b',"messages":[{"role":"user","content":"x"}]}',
        b"\x00" * 1000,
        b"\x1f\x8b\x08\x00",
        b"model=toy&messages=x",
    ],
    ids=lambda body: repr(body[:24]),
)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, EMBEDDINGS, "v1/tokenize", "v1/detokenize"])
def test_a_body_that_is_no_request(site: Site, path: str, body: bytes) -> None:
    assert _refused(site, path, body)["type"] == "invalid_request_error"


def test_of_a_key_given_twice_the_last_counts(site: Site) -> None:
    body = json.dumps(chat()).replace('"model"', '"model": "nothing", "stream": true, "stream": false, "model"', 1)
    answer = site.post(CHAT, body.encode())
    assert answer.status == 200
    assert answer.json()["model"] == TOY


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
        ({"model": "a\x00b"}, "model"),
        ({"model": "x" * 5000}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 10**6}, "n"),
        ({"n": 1.5}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_completion_tokens": 2**70}, "max_completion_tokens"),
        ({"stop": ["x"] * 100}, "stop"),
        ({"seed": "1"}, "seed"),
        ({"logprobs": 1}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"keep_alive": "soon"}, "keep_alive"),
        ({"timeout": 0}, "timeout"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"regex": "a", "choice": ["b"]}, None),
        ({"functions": [{}]}, "functions"),
        ({"chat_template_kwargs": {"a": [[[[]]]] * 2}}, "ok"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_wrong_field_is_named(site: Site, changes: dict[str, Any], param: str | None) -> None:
    if param == "ok":
        assert site.post(CHAT, chat(**changes)).status == 200
        return
    _refused(site, CHAT, chat(**changes), param)


def test_integral_floats_are_whole_numbers(site: Site) -> None:
    assert site.post(CHAT, chat(max_tokens=8.0, seed=1688.0, n=1.0)).status == 200


# ---- headers


@pytest.mark.parametrize(
    "header",
    [
        "X-Evil: a\r\nSet-Cookie: x=1",
        "Origin: http://localhost:1\r\n X: folded",
        "Access-Control-Request-Headers: a\x0bb",
        "Authorization: Bearer \xff\xfe",
        "Cookie: " + "a=b; " * 3000,
        ": nothing",
        "no colon",
    ],
)
def test_a_header_that_is_none(site: Site, header: str) -> None:
    head = f"POST {site.base_url}{CHAT} HTTP/1.1\r\nHost: localhost\r\n{header}\r\nContent-Length: 2\r\n\r\n{{}}"
    with site.raw(head.encode("latin-1")) as connection:
        connection.settimeout(5)
        data = connection.recv(65536)
    assert data == b"" or 400 <= int(data.split()[1]) < 500
    assert b"x=1" not in data


def test_an_origin_is_never_sent_back_with_a_line_end(site: Site) -> None:
    answer = site.request("OPTIONS", CHAT, headers={"Origin": "http://localhost:1%0d%0aX-Evil: 1"})
    assert "X-Evil" not in answer.headers
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("path", ["v1/models/%ff", "v1/models/%0d%0aX-Evil:1", "v1/%00", "v1/models/" + "a/" * 2000])
def test_a_path_that_is_none(site: Site, path: str) -> None:
    answer = site.get(path)
    site.close()  # Tornado drops a connection whose path is not UTF-8
    assert answer.status in (400, 404)
    assert "X-Evil" not in answer.headers


def test_names_cannot_forge_a_log_line(site: Site) -> None:
    site.post(CHAT, chat(model="toy", user="x\nkey=admin POST /v1 status=200"))
    assert not [line for line in site.log.access_lines() if line.startswith("key=admin")]


# ---- files that change


def test_a_model_replaced_while_it_is_loaded_is_answered(site: Site) -> None:
    path = write(site.models_dir / "moving.gguf", tiny_model())
    try:
        assert site.post(CHAT, chat(model="moving")).status == 200
        write(path, b"something else")
        assert site.post(CHAT, chat(model="moving")).status in (200, 404)
    finally:
        path.unlink()
    answer = site.post(CHAT, chat(model="moving"))
    assert answer.status == 404
    assert answer.error["code"] == "model_not_found"


def test_a_keys_file_without_a_home_locks_nobody_out_but_keys(site: Site) -> None:
    site.keys_file.mkdir()
    try:
        assert site.post(CHAT, chat(), bare=True, headers={"X-Api-Key": "sk-x"}).status == 503
        assert site.post(CHAT, chat()).status == 200
    finally:
        site.keys_file.rmdir()
