"""A message that is none is refused where it is made, by what is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from nbllm.core import Message
from nbllm.errors import ParameterError


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        pytest.param({"role": "wizard"}, "role", id="unknown role"),
        pytest.param({"role": ["user"]}, "role", id="role of a wrong type"),
        pytest.param({"content": None}, "content", id="no content"),
        pytest.param({"content": b"x"}, "content", id="content in bytes"),
        pytest.param({"reasoning": 5}, "reasoning", id="reasoning of a wrong type"),
        pytest.param({"name": 5}, "name", id="name of a wrong type"),
    ],
)
def test_message_of_wrong_parts_is_refused(parts: dict[str, Any], named: str) -> None:
    with pytest.raises(ParameterError) as refusal:
        Message(**{"role": "user", "content": "x", **parts})
    assert refusal.value.param == named
