"""`POST /v1/completions`: the answer, whole or as a stream. Choices are numbered prompt by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nbllm.core import Chunk, TokenLogprob
from nbllm.wire.openai.completions import CompletionCall
from nbllm.wire.openai.ending import Gathered, check, ending
from nbllm.wire.openai.head import Head
from nbllm.wire.openai.logprobs import TokenLists, joined, prompt_lists
from nbllm.wire.openai.stream import AnswerStream
from nbllm.wire.openai.usage import Costs


class _Echo:
    """The prompts as the answers repeat them: nothing, unless `echo` was asked for."""

    def __init__(self, call: CompletionCall, prompt_texts: Sequence[str] | None) -> None:
        texts = prompt_texts
        if texts is None:
            texts = [request.text or "" for request in call.requests]
            if call.needs_prompt_texts:
                raise ValueError("token ids are to be echoed: their texts are needed")
        self._num_top = call.logprobs
        self._texts = texts if call.echo else [""] * len(call.requests)
        self._tokens: dict[int, Sequence[TokenLogprob]] = {}
        self._is_echo = call.echo

    def add(self, prompt: int, chunk: Chunk) -> None:
        if chunk.prompt_logprobs:
            self._tokens.setdefault(prompt, chunk.prompt_logprobs)

    def text(self, prompt: int) -> str:
        return self._texts[prompt]

    def lists(self, prompt: int) -> dict[str, Any] | None:
        """The prompt's own likelihoods, in the old shape."""
        if not self._is_echo or self._num_top is None:
            return None
        return prompt_lists(self._texts[prompt], self._tokens.get(prompt, ()), self._num_top)


class CompletionAnswer:
    """A whole answer, gathered from its chunks.

    Args:
        prompt_texts: one a prompt, where `call.needs_prompt_texts`.
    """

    def __init__(self, head: Head, call: CompletionCall, prompt_texts: Sequence[str] | None = None) -> None:
        self._head = head
        self._call = call
        self._echo = _Echo(call, prompt_texts)
        self._choices = [[Gathered() for _ in range(call.best_of)] for _ in call.requests]
        self._costs = Costs()

    def add(self, prompt: int, chunk: Chunk) -> None:
        """Take a chunk of the answer to `call.requests[prompt]` in. Raises what it says went wrong, if it does."""
        check(chunk)
        self._choices[prompt][chunk.index].add(chunk)
        self._echo.add(prompt, chunk)
        self._costs.add(prompt, chunk)

    def usage(self) -> dict[str, Any]:
        """What it cost so far; whole once it is complete."""
        return self._costs.usage()

    def body(self) -> dict[str, Any]:
        chosen = [(prompt, choice) for prompt, group in enumerate(self._choices) for choice in self._best(group)]
        return {
            **self._head.body("text_completion"),
            "choices": [self._choice(index, prompt, choice) for index, (prompt, choice) in enumerate(chosen)],
            "usage": self._costs.usage(),
            "timings": self._costs.timings(),
        }

    def _best(self, group: list[Gathered]) -> list[Gathered]:
        if self._call.best_of == self._call.n:
            return group
        return sorted(group, key=_mean_logprob, reverse=True)[: self._call.n]

    def _choice(self, index: int, prompt: int, choice: Gathered) -> dict[str, Any]:
        text = self._echo.text(prompt)
        return {
            "text": text + "".join(choice.text),
            "index": index,
            "logprobs": self._logprobs(prompt, choice, len(text)),
            **ending(choice.last),
        }

    def _logprobs(self, prompt: int, choice: Gathered, offset: int) -> dict[str, Any] | None:
        if self._call.logprobs is None:
            return None
        lists = TokenLists(self._call.logprobs, offset).lists(choice.logprobs)
        echoed = self._echo.lists(prompt)
        return lists if echoed is None else joined(echoed, lists)


class CompletionStream(AnswerStream):
    """An answer's events, made from its chunks as they come.

    Args:
        prompt_texts: one a prompt, where `call.needs_prompt_texts`.
    """

    def __init__(self, head: Head, call: CompletionCall, prompt_texts: Sequence[str] | None = None) -> None:
        super().__init__(head, "text_completion", call.include_usage)
        self._call = call
        self._echo = _Echo(call, prompt_texts)
        self._lists: dict[int, TokenLists] = {}

    def begin(self) -> list[bytes]:
        """The echoed prompts, unless their likelihoods come with them: those are known with the first chunk."""
        if not self._call.echo or self._call.logprobs is not None:
            return []
        return [
            self._event(prompt * self._call.n + answer, self._echo.text(prompt))
            for prompt in range(len(self._call.requests))
            for answer in range(self._call.n)
        ]

    def events(self, prompt: int, chunk: Chunk) -> list[bytes]:
        """The events of a chunk of the answer to `call.requests[prompt]`; none for a chunk without news.

        Raises what the chunk says went wrong, if it does.
        """
        self._take(prompt, chunk)
        index = prompt * self._call.n + chunk.index
        self._echo.add(prompt, chunk)
        events = self._first(index, prompt)
        lists = self._lists.get(index)
        if chunk.text or (chunk.logprobs and lists):
            logprobs = lists.lists(chunk.logprobs) if lists and chunk.logprobs else None
            events.append(self._event(index, chunk.text, logprobs))
        if chunk.finish_reason is not None:
            events.append(self._event(index, "", last=chunk))
        return events

    def _first(self, index: int, prompt: int) -> list[bytes]:
        """With a choice's first chunk: its echoed prompt with likelihoods, if those were asked for."""
        if self._call.logprobs is None or index in self._lists:
            return []
        text = self._echo.text(prompt)
        self._lists[index] = TokenLists(self._call.logprobs, len(text))
        echoed = self._echo.lists(prompt)
        return [] if echoed is None else [self._event(index, text, echoed)]

    def _event(self, index: int, text: str, logprobs: dict[str, Any] | None = None, last: Chunk | None = None) -> bytes:
        return self._writer.choice({"text": text, "index": index, "logprobs": logprobs, **ending(last)})


def _mean_logprob(choice: Gathered) -> float:
    """An answer without tokens is nobody's best."""
    total = sum(token.logprob for token in choice.logprobs)
    return total / len(choice.logprobs) if choice.logprobs else float("-inf")
