from __future__ import annotations

from typing import Any

import pytest

from nbllm.core import ChoiceRequest, Message
from nbllm.core.requests import MAX_CHOICES
from nbllm.errors import ParameterError

_ASKED = (Message("user", "q"),)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param({"choices": ("a",)}, "choices", id="one"),
        pytest.param({"choices": ()}, "choices", id="none"),
        pytest.param({"choices": ("a", "b", "a")}, "'a' twice", id="twice"),
        pytest.param({"choices": ("a", "")}, "not ''", id="empty"),
        pytest.param({"choices": ("a", 1)}, "not 1", id="number"),
        pytest.param({"choices": tuple(map(str, range(MAX_CHOICES + 1)))}, "1000", id="too many"),
        pytest.param({"choices": ("a", "b"), "timeout_s": 0}, "seconds", id="no time"),
    ],
)
def test_choices_that_cannot_be_compared_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        ChoiceRequest(messages=_ASKED, **given)
