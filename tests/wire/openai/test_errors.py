from __future__ import annotations

import msgspec
import pytest

from nbllm.wire.openai.errors import error_body, error_event
from nbllm.wire.openai.listing import model_body, models_body
from nbllm.wire.sse import SseParser


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_error_has_all_four_keys(status: int, kind: str) -> None:
    assert error_body(status, "no", param="n") == {"error": {"message": "no", "type": kind, "param": "n", "code": None}}


@pytest.mark.parametrize("message", ["no\n\ndata: [DONE]", "half a pair: \ud800"], ids=["line ends", "surrogate"])
def test_error_event_is_one_event_whatever_it_says(message: str) -> None:
    (data,) = SseParser().push(error_event(503, message, code="gone"))
    error = msgspec.json.decode(data)["error"]
    assert error["message"] == message.replace("\ud800", "?")
    assert (error["type"], error["param"], error["code"]) == ("server_error", None, "gone")


def test_models_have_what_clients_check() -> None:
    model = model_body("m", 1700000000)
    assert model == {"id": "m", "object": "model", "created": 1700000000, "owned_by": "nbllm"}
    assert models_body(iter([model])) == {"object": "list", "data": [model]}
