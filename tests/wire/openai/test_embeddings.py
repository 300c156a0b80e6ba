from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from openai.types import CreateEmbeddingResponse

from nbllm.errors import ParameterError
from nbllm.wire.openai.embeddings import EmbedCall, embeddings_body, parse_embeddings
from tests.wire.openai.bodies import embeddings

VECTORS = [np.array([0.6, 0.8, 0.0], dtype=np.float32), np.array([0.0, 0.0, 1.0], dtype=np.float32)]


def parsed(**fields: Any) -> EmbedCall:
    return parse_embeddings(embeddings(**fields))


@pytest.mark.parametrize(
    ("given", "inputs", "tokens"),
    [
        pytest.param("a", ("a",), None, id="a text"),
        pytest.param(["a", " "], ("a", " "), None, id="texts"),
        pytest.param([1, 2.0], None, ((1, 2),), id="token ids"),
        pytest.param([[1], [2]], None, ((1,), (2,)), id="lists of token ids"),
    ],
)
def test_all_four_forms_of_an_input_are_taken(given: Any, inputs: Any, tokens: Any) -> None:
    call = parsed(input=given)
    assert (call.inputs, call.tokens) == (inputs, tokens)


def test_every_option_arrives() -> None:
    call = parsed(encoding_format="base64", dimensions=2.0, user="u", keep_alive=-3, timeout=4, extra=1)
    assert (call.base64, call.dimensions, call.user, call.keep_alive, call.timeout_s) == (True, 2, "u", -1.0, 4)
    assert call.unknown == ("extra",)
    assert not parsed(encoding_format=None).base64


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing": ({"input": None}, "input", "must be a string or a list"),
    "empty": ({"input": ""}, "input", "is empty"),
    "empty list": ({"input": []}, "input", "is an empty list"),
    "one empty": ({"input": ["a", ""]}, "input[1]", "is empty"),
    "no ids": ({"input": [[]]}, "input[0]", "is an empty list"),
    "too many": ({"input": ["a"] * 2049}, "input", "at most 2,048"),
    "format": ({"encoding_format": "hex"}, "encoding_format", "'hex' is not one of float, base64"),
    "no dimensions": ({"dimensions": 0}, "dimensions", "from 1"),
    "half a dimension": ({"dimensions": 1.5}, "dimensions", "whole number"),
    "timeout": ({"timeout": -1}, "timeout", "above 0"),
}


@pytest.mark.parametrize(("fields", "param", "problem"), WRONG.values(), ids=WRONG.keys())
def test_wrong_field_is_named(fields: dict[str, Any], param: str, problem: str) -> None:
    with pytest.raises(ParameterError) as caught:
        parsed(**fields)
    assert caught.value.param == param
    assert problem in caught.value.problem


def test_body_has_openais_shape() -> None:
    body = embeddings_body("m", VECTORS, 5)
    answer = CreateEmbeddingResponse.model_validate(body, strict=True)
    assert [item.index for item in answer.data] == [0, 1]
    assert answer.data[0].embedding == pytest.approx([0.6, 0.8, 0.0])
    assert (answer.model, answer.usage.prompt_tokens, answer.usage.total_tokens) == ("m", 5, 5)


def test_base64_is_little_endian_float32() -> None:
    data = embeddings_body("m", VECTORS, 5, in_base64=True)["data"]
    assert np.frombuffer(base64.b64decode(data[0]["embedding"]), dtype="<f4").tolist() == VECTORS[0].tolist()


@pytest.mark.parametrize("in_base64", [False, True], ids=["float", "base64"])
def test_cut_vectors_are_unit_vectors_again(in_base64: bool) -> None:
    data = embeddings_body("m", VECTORS, 5, in_base64=in_base64, dimensions=1)["data"]
    given = [item["embedding"] for item in data]
    vectors = [np.frombuffer(base64.b64decode(text), dtype="<f4").tolist() for text in given] if in_base64 else given
    assert vectors == [[1.0], [0.0]]  # nothing is left of the second, and no division by it


def test_all_dimensions_change_nothing() -> None:
    assert embeddings_body("m", VECTORS, 5, dimensions=3) == embeddings_body("m", VECTORS, 5)


def test_more_dimensions_than_there_are_is_an_error() -> None:
    with pytest.raises(ParameterError, match="dimensions: 4 is too many: this model's vectors have 3"):
        embeddings_body("m", VECTORS, 5, dimensions=4)
