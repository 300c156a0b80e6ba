"""Likelihoods of a whole answer the slow way: prompt, answer and end evaluated anew, every output read."""

from __future__ import annotations

import functools

from nbllm.core import ChoiceRequest, GenerateRequest, Message, Row, TokenLogprob
from nbllm.engine.likelihoods import chosen_logprobs
from nbllm.engine.prompt import Prompts
from nbllm.testing import ToyBackend
from nbllm.testing.vocabulary import IM_END


def evaluated_alone(request: ChoiceRequest, choice: str) -> tuple[TokenLogprob, ...]:
    """What the toy says of one choice."""
    return _evaluated(request.messages, choice)


@functools.lru_cache(maxsize=1024)
def _evaluated(messages: tuple[Message, ...], choice: str) -> tuple[TokenLogprob, ...]:
    backend = ToyBackend()
    prompt = list(Prompts(backend).prepare(GenerateRequest(messages=messages)).tokens)
    answer = [*choice.encode(), IM_END]
    tokens = [*prompt, *answer]
    context = backend.make_context(kv_tokens=512, num_slots=1, unified=True, kv_type="f16")
    context.decode([Row(token, place, 0, True) for place, token in enumerate(tokens)])
    return tuple(
        TokenLogprob(token, backend.pieces[token], chosen_logprobs(context.logits(place - 1), [token])[0])
        for place, token in enumerate(tokens)
        if place >= len(prompt)
    )
