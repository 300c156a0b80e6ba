"""From a ChoiceRequest to token ids: the prompt, and each choice as the whole answer to it."""

from __future__ import annotations

from nbllm.core import ChoiceRequest, GenerateRequest, Message
from nbllm.engine.backend import Backend
from nbllm.engine.choicejob import ChoiceTree
from nbllm.engine.prompt import Prompts
from nbllm.engine.templates import MOST_KEPT
from nbllm.errors import InvalidRequestError, TemplateError, UnsupportedError

_BEFORE = "\n"


class Choices:
    """Tokenizes choices for one model. Safe on any thread."""

    def __init__(self, backend: Backend, prompts: Prompts) -> None:
        self._backend, self._prompts = backend, prompts
        self._turn_ends: dict[str | None, int | None] = {}

    def prepare(self, request: ChoiceRequest) -> tuple[list[int], ChoiceTree]:
        """The prompt's ids, and those of the choices.

        Thinking that the template begins by itself is closed at once: a choice is an answer.

        Raises:
            InvalidRequestError: the prompt is empty, not encodable or refused by the template, or a choice is.
            UnsupportedError: the model has no token that ends an answer.
        """
        end = self._turn_end(request.template)
        if end is None:
            raise UnsupportedError("this model has no token that ends an answer: compare texts with model.score")
        asked = GenerateRequest(
            messages=request.messages, template_options=request.template_options, template=request.template
        )
        prompt = self._prompts.prepare(asked)
        tokens = list(prompt.tokens)
        if prompt.rendered.opens_reasoning:
            tokens += self._parsed(f"{prompt.reasoning_tags.close}\n\n")
        return tokens, ChoiceTree([self._tokens(choice) for choice in request.choices], end)

    def _tokens(self, choice: str) -> list[int]:
        """The tokens that spell exactly this text; some tokenizers put a space before any text."""
        tokens = self._plain(choice)
        if self._backend.detokenize(tokens) != choice.encode():
            before = self._plain(_BEFORE)
            both = self._plain(_BEFORE + choice)
            if both[: len(before)] == before and self._backend.detokenize(both[len(before) :]) == choice.encode():
                tokens = both[len(before) :]
        if not tokens:
            raise InvalidRequestError(f"the choice {choice!r:.100} has no tokens in this model's vocabulary")
        return tokens

    def _turn_end(self, template: str | None) -> int | None:
        """Remembered for the model's own template and a few of requests."""
        known = self._turn_ends  # another thread may start anew meanwhile
        if template in known:
            return known[template]
        if len(known) > MOST_KEPT:
            known = self._turn_ends = {}
        end = known[template] = self._found_turn_end(template)
        return end

    def _found_turn_end(self, template: str | None) -> int | None:
        """What follows an assistant's words in the template, else the vocabulary's EOT, else its EOS.

        The vocabulary alone does not tell: for ChatML models llama.cpp may name the end of a text as EOT.
        """
        templated = next(filter(self._backend.is_end, self._after_an_answer(template)), None)
        return next(
            (one for one in (templated, self._backend.special("eot"), self._backend.special("eos")) if one is not None),
            None,
        )

    def _after_an_answer(self, source: str | None) -> list[int]:
        turns = (Message("user", "."), Message("assistant", "."))
        template = self._prompts.templates.of(source)
        try:
            whole = template.render(turns, add_generation_prompt=False).text
            begun = template.render(turns, continue_final=True).text
        except TemplateError:
            return []
        return self._parsed(whole.removeprefix(begun)) if whole.startswith(begun) else []

    def _plain(self, text: str) -> list[int]:
        return self._backend.tokenize(text, add_special=False, parse_special=False)

    def _parsed(self, text: str) -> list[int]:
        return self._backend.tokenize(text, add_special=False, parse_special=True)
