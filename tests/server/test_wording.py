"""What clients are told of an engine's errors."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from nbllm.errors import ContextOverflowError
from nbllm.runner.errors import LoadCrashError
from nbllm.server.naming import Target
from nbllm.server.wording import ServedOverflowError, for_clients


@pytest.mark.parametrize(
    ("prompt", "context", "trained", "advice"),
    [
        pytest.param(3000, 2048, 8192, ", or have the server started with --context-length 3584", id="longer"),
        pytest.param(7900, 2048, 8192, ", or have the server started with --context-length 8192", id="longest"),
        pytest.param(20_195, 8192, 8192, "", id="the model's own"),
        pytest.param(20_195, 2048, 8192, "", id="beyond the model's own"),
        pytest.param(3000, 2048, 0, "", id="not known"),
    ],
)
def test_overflow_names_the_servers_option_up_to_what_the_model_can(
    prompt: int, context: int, trained: int, advice: str
) -> None:
    target = Target("m", Path("/models/m.gguf"), context_length=trained)
    with pytest.raises(ServedOverflowError) as caught, for_clients(target):
        raise ContextOverflowError(prompt, context)
    told = f"the prompt has {prompt:,} tokens and the context holds {context:,}: shorten the prompt{advice}"
    assert str(caught.value) == told
    assert str(pickle.loads(pickle.dumps(caught.value))) == told


def test_files_are_told_without_their_folder() -> None:
    path = Path("/home/ada/models/m-00001-of-00002.gguf")
    with pytest.raises(LoadCrashError, match=r"^m-00002-of-00002\.gguf: is cut$"), for_clients(Target("m", path)):
        raise LoadCrashError("/home/ada/models/m-00002-of-00002.gguf: is cut")
