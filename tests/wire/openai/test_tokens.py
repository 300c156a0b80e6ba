from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nbllm.errors import ParameterError
from nbllm.wire.openai.tokens import detokenize_body, input_tokens_body, parse_detokenize, parse_tokenize, tokenize_body


def encoded(**fields: Any) -> bytes:
    return msgspec.json.encode({"model": "m"} | fields)


def test_text_to_tokenize_arrives() -> None:
    call = parse_tokenize(encoded(content="a", with_pieces=True))
    assert (call.model, call.content, call.parse_special, call.unknown) == ("m", "a", True, ("with_pieces",))
    assert not parse_tokenize(encoded(content="", parse_special=False)).parse_special


def test_tokens_to_detokenize_arrive() -> None:
    call = parse_detokenize(encoded(tokens=[1, 2.0]))
    assert (call.model, call.tokens, call.unknown) == ("m", (1, 2), ())
    assert parse_detokenize(encoded(tokens=[])).tokens == ()


def test_wrong_field_is_named() -> None:
    with pytest.raises(ParameterError, match="content: is required"):
        parse_tokenize(encoded())
    with pytest.raises(ParameterError, match=r"tokens\[1\]: must be a token id"):
        parse_detokenize(encoded(tokens=[1, -5]))
    with pytest.raises(ParameterError, match="model: is empty"):
        parse_detokenize(msgspec.json.encode({"model": "", "tokens": [1]}))


def test_bodies() -> None:
    assert tokenize_body("m", (1, 2)) == {"model": "m", "tokens": [1, 2], "count": 2}
    assert detokenize_body("m", "a") == {"model": "m", "content": "a"}
    assert input_tokens_body(3) == {"object": "response.input_tokens", "input_tokens": 3}
