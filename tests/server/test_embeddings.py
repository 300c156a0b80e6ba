"""`POST /v1/embeddings`."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.server.serving import EMBEDDINGS, TOY, Site


def _asked(site: Site, given: Any, **more: Any) -> list[Any]:
    answer = site.post(EMBEDDINGS, {"model": TOY, "input": given, **more})
    assert answer.status == 200, answer.body
    return [entry["embedding"] for entry in answer.json()["data"]]


def test_embeddings_are_unit_vectors_in_the_order_of_the_inputs(site: Site) -> None:
    answer = site.post(EMBEDDINGS, {"model": TOY, "input": ["one", "two", "one"]}).json()
    assert answer["object"] == "list"
    assert answer["model"] == TOY
    assert [entry["index"] for entry in answer["data"]] == [0, 1, 2]
    assert {entry["object"] for entry in answer["data"]} == {"embedding"}
    first, second, third = (np.array(entry["embedding"]) for entry in answer["data"])
    assert np.allclose(first, third, atol=1e-5)
    assert not np.allclose(first, second, atol=1e-2)
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-5)
    assert answer["usage"] == {"prompt_tokens": answer["usage"]["total_tokens"], "total_tokens": 12}


def test_base64_holds_the_same_numbers(site: Site) -> None:
    (numbers,) = _asked(site, "text")
    (coded,) = _asked(site, "text", encoding_format="base64")
    assert np.allclose(np.frombuffer(base64.b64decode(coded), "<f4"), numbers)


def test_dimensions_cut_and_leave_unit_vectors(site: Site) -> None:
    (whole,) = _asked(site, "text")
    (cut,) = _asked(site, "text", dimensions=4)
    assert len(cut) == 4
    assert np.allclose(cut, np.array(whole[:4]) / np.linalg.norm(whole[:4]), atol=1e-5)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        pytest.param({"input": ""}, "input", id="empty text"),
        pytest.param({"input": []}, "input", id="empty list"),
        pytest.param({"input": ["a", ""]}, "input[1]", id="one empty"),
        pytest.param({"input": ["a", 1]}, "input[1]", id="mixed"),
        pytest.param({"input": "a", "dimensions": 10_000}, "dimensions", id="more than the model's"),
        pytest.param({"input": "a", "dimensions": 0}, "dimensions", id="none at all"),
        pytest.param({"input": "a", "encoding_format": "hex"}, "encoding_format", id="unknown format"),
        pytest.param({}, "input", id="no input"),
    ],
)
def test_bad_input_is_named(site: Site, body: dict[str, Any], param: str) -> None:
    answer = site.post(EMBEDDINGS, {"model": TOY, **body})
    assert answer.status == 400
    assert answer.error["param"] == param


@pytest.mark.parametrize("given", [[72, 105], [[72, 105], [72]]])
def test_token_ids_are_refused_and_langchain_is_told_why(site: Site, given: Any) -> None:
    answer = site.post(EMBEDDINGS, {"model": TOY, "input": given})
    assert answer.status == 400
    assert answer.error["param"] == "input"
    assert "check_embedding_ctx_length=False" in answer.error["message"]


def test_token_ids_are_taken_where_the_owner_says_so(site: Site) -> None:
    site.service.limits = replace(site.service.limits, allow_token_ids=True)
    assert np.allclose(_asked(site, list(b"Hi")), _asked(site, "Hi"), atol=1e-5)


@pytest.mark.parametrize("given", [[300], [[72], [10**6]]], ids=["beyond", "far beyond"])
def test_token_ids_that_the_model_does_not_have(site: Site, given: Any) -> None:
    site.service.limits = replace(site.service.limits, allow_token_ids=True)
    answer = site.post(EMBEDDINGS, {"model": TOY, "input": given})
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"


def test_text_too_long_for_the_context(site: Site) -> None:
    answer = site.post(EMBEDDINGS, {"model": TOY, "input": "x" * 5000})
    assert answer.status == 400
    assert answer.error["code"] == "context_length_exceeded"


def test_many_texts(site: Site) -> None:
    assert len(_asked(site, [f"text {i}" for i in range(100)])) == 100
