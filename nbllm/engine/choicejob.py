"""How likely each of several whole answers is: their tokens as a tree, and the job that fills it in."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Rows
from typing import TYPE_CHECKING

from nbllm.core import Chunk, FinishReason, TokenLogprob, Usage
from nbllm.engine.answer import Clocks
from nbllm.engine.likelihoods import Output, chosen_logprobs
from nbllm.engine.sequence import Sequence

if TYPE_CHECKING:
    from nbllm.engine.backend import Context

_Path = tuple[int, ...]


class ChoiceTree:
    """The tokens of all choices, each followed by the end of the turn.

    Attributes:
        leaves: the choices that no other one goes on from; evaluating them gives an output for every token.
    """

    def __init__(self, choices: Rows[Rows[int]], end: int) -> None:
        self.paths: list[_Path] = [(*choice, end) for choice in choices]
        self._next: dict[_Path, list[int]] = {}
        for path in self.paths:
            for length, token in enumerate(path):
                known = self._next.setdefault(path[:length], [])
                if token not in known:
                    known.append(token)
        self.leaves = list(dict.fromkeys(path[:-1] for path in self.paths if self._next[path[:-1]] == [end]))
        self._found: dict[_Path, float] = {}

    def take(self, before: _Path, context: Context, row: int) -> None:
        """Read from an output how likely every token is that some choice has after `before`; once is enough."""
        wanted = self._next.get(before, ())
        if wanted and (*before, wanted[0]) not in self._found:
            for token, logprob in zip(wanted, chosen_logprobs(context.logits(row), wanted), strict=True):
                self._found[*before, token] = logprob

    def is_known(self, leaf: _Path) -> bool:
        return (*leaf, self._end) in self._found

    def logprobs(self, index: int) -> list[float]:
        """Of a choice's tokens and of the end."""
        path = self.paths[index]
        return [self._found[path[: length + 1]] for length in range(len(path))]

    @property
    def _end(self) -> int:
        return self.paths[0][-1]


class ChoiceJob:
    """Collects the likelihoods of all choices after one prompt.

    The prompt's last output serves every choice's first token, and each choice is a branch of the sequence; the token
    that ends the turn is never evaluated.
    """

    needs_embeddings = False

    def __init__(self, sequence: Sequence, tree: ChoiceTree, pieces: Mapping[int, bytes], clocks: Clocks) -> None:
        self.sequence, self.clocks = sequence, clocks
        self._tree, self._pieces = tree, pieces
        sequence.branches = list(tree.leaves)

    def advance(self, context: Context, outputs: Rows[Output], now: float) -> FinishReason | None:
        self.clocks.first_token = self.clocks.first_token or now
        self.clocks.last_token = now
        begin = self.sequence.num_prompt
        for row, position, branch in outputs:
            tokens = (branch or self.sequence).tokens
            self._tree.take(tuple(tokens[begin : position + 1]), context, row)
        self.sequence.branches = [leaf for leaf in self.sequence.branches if not self._tree.is_known(leaf)]
        return None if self.sequence.branches else "stop"

    def due(self, now: float) -> Chunk | None:
        return None

    def finish(self, reason: FinishReason, error: BaseException | None = None) -> list[Chunk]:
        """A chunk for each choice. A choice's tokens are its own in the usage; the prompt's are in the first."""
        return [
            Chunk(
                index=index,
                finish_reason=reason,
                error=error,
                token_logprobs=self._logprobs(index) if reason == "stop" else None,
                usage=self._usage(index),
                timings=self.clocks.timings(),
            )
            for index in range(len(self._tree.paths))
        ]

    def close(self) -> None:
        """Nothing is held."""

    def _logprobs(self, index: int) -> tuple[TokenLogprob, ...]:
        path = self._tree.paths[index]
        return tuple(
            TokenLogprob(token, self._pieces[token], logprob)
            for token, logprob in zip(path, self._tree.logprobs(index), strict=True)
        )

    def _usage(self, index: int) -> Usage:
        own = len(self._tree.paths[index]) - 1
        if index:
            return Usage(prompt_tokens=own)
        return Usage(prompt_tokens=own + self.sequence.num_prompt, cached_tokens=self.sequence.num_cached)
