"""How likely each of several answers is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from nbllm.core import ChoiceRequest, Priority
from nbllm.errors import ParameterError
from nbllm.session.requests import Options, Prompt, messages, with_system


class Choices(NamedTuple):
    """How likely a model is to answer with each of several texts.

    Attributes:
        probabilities: of each, given that the answer is one of them: they sum to 1.
        logprobs: natural logarithm of the probability of the whole answer, its end included, among all there could be.
    """

    probabilities: dict[str, float]
    logprobs: dict[str, float]

    @classmethod
    def of(cls, logprobs: Mapping[str, float]) -> Choices:
        highest = max(logprobs.values())
        weights = {choice: math.exp(logprob - highest) for choice, logprob in logprobs.items()}
        total = math.fsum(weights.values())
        return cls({choice: weight / total for choice, weight in weights.items()}, dict(logprobs))

    @property
    def best(self) -> str:
        """The likeliest; of several the first."""
        return max(self.logprobs, key=self.logprobs.__getitem__)


def choice_request(
    prompt: Prompt, choices: Iterable[str], options: Options, priority: Priority = "interactive"
) -> ChoiceRequest:
    """A prompt and the answers to compare.

    Raises:
        ParameterError: the choices are not 2 or more different texts.
    """
    if isinstance(choices, str) or not isinstance(choices, Iterable):
        raise ParameterError("choices", f"must be a list of texts, not {choices!r:.100}")
    return ChoiceRequest(
        messages=with_system(messages(prompt), options.system),
        choices=tuple(choices),
        template_options=options.template_options,
        adapters=options.adapters,
        priority=priority,
        reproducible=options.reproducible,
        cache_prompt=options.cache_prompt,
        timeout_s=options.timeout_s,
    )
