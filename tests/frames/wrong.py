"""What is no model, for the tests of whatever takes one."""

from __future__ import annotations

import pytest

wrong_models = pytest.mark.parametrize(
    ("model", "says"),
    [
        pytest.param("no-such-model", "no model 'no-such-model'", id="name"),
        pytest.param(5, "must be a name, a path or a Model", id="number"),
        pytest.param("http://localhost:1/v1", "nbllm.connect", id="address"),
    ],
)
