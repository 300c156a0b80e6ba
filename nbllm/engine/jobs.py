"""What is wanted of a sequence's outputs: an answer, a vector, or likelihoods.

A job owns its sequence and says what each evaluated output means; the lane knows only the methods they share.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Rows
from typing import TYPE_CHECKING, Protocol

from nbllm.core import Chunk, FinishReason, SamplingParams, Usage
from nbllm.engine.answer import Answer, Clocks
from nbllm.engine.backend import Context, Matcher, Sampler, Vocabulary
from nbllm.engine.calling import Bind
from nbllm.engine.likelihoods import Distribution, Likelihoods, Output
from nbllm.engine.sequence import MAX_DECODE_TOKENS, Sequence
from nbllm.errors import ConstraintError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_FREE_TRIES = 4
"""Choices that may turn out not to be allowed before the mask is asked for."""


class Job(Protocol):
    """Something to be made of one sequence's outputs."""

    sequence: Sequence
    clocks: Clocks
    needs_embeddings: bool

    def advance(self, context: Context, outputs: Rows[Output], now: float) -> FinishReason | None:
        """Take a step's outputs, in order of position. Returns why the job is done, None while it is not."""

    def due(self, now: float) -> Chunk | None:
        """What is ready to be shown."""

    def finish(self, reason: FinishReason, error: BaseException | None = None) -> Rows[Chunk]:
        """The last chunk of each answer."""

    def close(self) -> None:
        """Free what the job holds."""


class GenerateJob:
    """Continues a sequence token by token.

    Args:
        params: with every default filled in.
        limit: tokens that the whole sequence may have.
        likelihoods: of the prompt's tokens, when they are wanted.
        bind: gives the matcher that guarantees a call which the answer has begun.
        one_at_a_time: forced tokens are evaluated one a step too, because the shape of a step must not vary.
    """

    needs_embeddings = False

    def __init__(
        self,
        sequence: Sequence,
        answer: Answer,
        params: SamplingParams,
        *,
        vocabulary: Vocabulary,
        pieces: Mapping[int, bytes],
        sampler: Sampler,
        matcher: Matcher | None,
        limit: int,
        clocks: Clocks,
        bind: Bind | None = None,
        likelihoods: Likelihoods | None = None,
        one_at_a_time: bool = False,
    ) -> None:
        self.sequence, self.answer, self.clocks = sequence, answer, clocks
        self._params = params
        self._vocabulary, self._pieces = vocabulary, pieces
        self._sampler, self._matcher, self._bind = sampler, matcher, bind
        self._likelihoods = likelihoods
        self._max_tokens = limit - sequence.num_prompt if params.max_tokens is None else params.max_tokens
        self._limit = limit
        self._max_forced = 0 if one_at_a_time or params.logprobs else MAX_DECODE_TOKENS - 1

    def advance(self, context: Context, outputs: Rows[Output], now: float) -> FinishReason | None:
        if self._likelihoods is not None:
            self._likelihoods.take(context, outputs)
        if self.sequence.num_pending:  # its state was lost, and these tokens are evaluated for the second time
            return None
        if self._likelihoods is not None:
            self.answer.prompt_logprobs, self._likelihoods = self._likelihoods.found, None
        if self._max_tokens == 0:
            return "length"
        row = outputs[-1].row
        logprob = self._logprob_of(context.logits(row)) if self._params.logprobs else None
        token = self._choose(context, row)
        self.clocks.first_token = self.clocks.first_token or now
        self.clocks.last_token = now
        if self._vocabulary.is_end(token) and not self._owes_an_answer:
            return "stop"
        return self._take(token, logprob) or self._take_forced()

    def due(self, now: float) -> Chunk | None:
        return self.answer.due(now)

    def finish(self, reason: FinishReason, error: BaseException | None = None) -> list[Chunk]:
        usage = Usage(
            prompt_tokens=self.sequence.num_prompt,
            completion_tokens=self.answer.num_tokens,
            cached_tokens=self.sequence.num_cached,
            reasoning_tokens=self.answer.num_reasoning,
        )
        return [self.answer.finish(reason, usage, self.clocks.timings(), self._params.seed, error)]

    def close(self) -> None:
        self._sampler.close()

    @property
    def _constraint(self) -> Matcher | None:
        """The grammar binds the answer, not the thinking before it."""
        return None if self.answer.in_reasoning else self._matcher

    @property
    def _owes_an_answer(self) -> bool:
        """It is still thinking before an answer whose shape was promised."""
        return self._matcher is not None and self.answer.in_reasoning

    def _choose(self, context: Context, row: int) -> int:
        """Sample; under a constraint try free choices first.

        A mask costs half a millisecond, and beside busy Python a wait for the GIL, which llguidance and numpy give up
        for it. Dropping each choice that is not allowed and drawing again keeps the proportions of all others, so
        nothing is favoured; top_k, top_p and min_p cut what is drawn from each time, as in llama.cpp's own sampling.
        A sampler with a memory would remember the choices that were dropped, so it gets the mask at once.
        """
        matcher = self._constraint
        if matcher is None:
            return self._sampler.sample(context, row)
        if not self._sampler.has_memory:
            for _ in range(_FREE_TRIES):
                token = self._sampler.sample(context, row)
                if matcher.allows(token):
                    return token
                context.logits(row)[token] = float("-inf")
        matcher.mask(context.logits(row))
        token = self._sampler.sample(context, row)
        if not matcher.allows(token):
            raise ConstraintError("the constraint and logit_bias leave no token to choose; drop one of them")
        return token

    def _take(self, token: int, logprob: Distribution | None) -> FinishReason | None:
        matcher = self._constraint
        self.sequence.tokens.append(token)
        entry = None if logprob is None else logprob.of(token, self._pieces)
        self.answer.add(token, self._pieces[token], entry)
        if self.answer.is_stopped:
            return "stop"
        if matcher is not None and not matcher.consume(token):
            raise ConstraintError("the constraint became too complex to go on with; simplify it")
        if matcher is not None and matcher.is_complete:
            return "stop"
        self._bind_call()
        if self.answer.num_tokens >= self._max_tokens or len(self.sequence.tokens) >= self._limit:
            return "length"
        return None

    def _take_forced(self) -> FinishReason | None:
        """Tokens that the grammar leaves no choice about need no sampling, and are evaluated together."""
        if self._constraint is None or not self._max_forced:
            return None
        for token in self._constraint.forced()[: self._max_forced]:
            if self._vocabulary.is_end(token):
                return None
            if self._sampler.has_memory:
                self._sampler.accept(token)
            reason = self._take(token, None)
            if reason is not None:
                return reason
        return None

    def _bind_call(self) -> None:
        """From the opening of a call on the grammar of the calls holds, if what stands there already fits it."""
        if self._bind is None or self.answer.calls is None or (begun := self.answer.calls.opened) is None:
            return
        self._matcher, self._bind = self._bind(begun), None
        if self._matcher is not None:
            self.answer.calls.trust()

    def _logprob_of(self, logits: NDArray[np.float32]) -> Distribution:
        return Distribution(logits, self._params.top_logprobs)


class EmbedJob:
    """Pools the hidden states of a whole text into one vector, of length 1 if `unit`, step by step.

    Pooling here instead of in llama.cpp lets a long text be evaluated in slices, beside sequences that decode.
    """

    needs_embeddings = True

    def __init__(self, sequence: Sequence, index: int, pooling: str, clocks: Clocks, *, unit: bool = True) -> None:
        self.sequence, self.clocks = sequence, clocks
        self._index = index
        self._pooling, self._is_unit = pooling, unit
        self._sum: NDArray[np.float64] | None = None
        self._count = 0
        self._next = 0  # a sequence that lost its state brings outputs that were taken before

    def advance(self, context: Context, outputs: Rows[Output], now: float) -> FinishReason | None:
        self.clocks.last_token = now
        for output in outputs:
            if output.position == self._next:
                self._take(context.embedding(output.row), output.position)
                self._next += 1
        return "stop" if self.sequence.num_pending == 0 else None

    def due(self, now: float) -> Chunk | None:
        return None

    def finish(self, reason: FinishReason, error: BaseException | None = None) -> list[Chunk]:
        chunk = Chunk(
            index=self._index,
            finish_reason=reason,
            error=error,
            embedding=self._pooled() if reason == "stop" else None,
            usage=Usage(prompt_tokens=self.sequence.num_prompt),
            timings=self.clocks.timings(),
        )
        return [chunk]

    def close(self) -> None:
        self._sum = None

    def _take(self, state: NDArray[np.float32], position: int) -> None:
        if self._pooling == "last" or (self._pooling == "cls" and position == 0) or self._sum is None:
            self._sum, self._count = state.astype("float64"), 1
        elif self._pooling == "mean":
            self._sum += state
            self._count += 1

    def _pooled(self) -> NDArray[np.float32] | None:
        import numpy as np

        if self._sum is None:
            return None
        mean = self._sum / self._count
        norm = float(np.linalg.norm(mean)) if self._is_unit else 0.0
        return (mean / norm if norm else mean).astype(np.float32)


class ScoreJob:
    """Collects the log-likelihood of each token of a continuation.

    The sequence lacks the continuation's last token, `last`: nothing depends on its output.
    """

    needs_embeddings = False

    def __init__(self, sequence: Sequence, last: int, pieces: Mapping[int, bytes], clocks: Clocks) -> None:
        self.sequence, self.clocks = sequence, clocks
        self._likelihoods = Likelihoods([*sequence.tokens[1:], last], sequence.outputs_from, pieces)

    def advance(self, context: Context, outputs: Rows[Output], now: float) -> FinishReason | None:
        self.clocks.last_token = now
        self._likelihoods.take(context, outputs)
        return "stop" if self.sequence.num_pending == 0 else None

    def due(self, now: float) -> Chunk | None:
        return None

    def finish(self, reason: FinishReason, error: BaseException | None = None) -> list[Chunk]:
        chunk = Chunk(
            finish_reason=reason,
            error=error,
            token_logprobs=self._likelihoods.found if reason == "stop" else None,
            usage=Usage(prompt_tokens=self.sequence.num_prompt, cached_tokens=self.sequence.num_cached),
            timings=self.clocks.timings(),
        )
        return [chunk]

    def close(self) -> None:
        """Nothing is held."""
