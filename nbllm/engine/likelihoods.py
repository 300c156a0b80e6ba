"""How likely tokens are, under the model's own distribution, before any bias or truncation."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Tokens
from typing import TYPE_CHECKING, NamedTuple

from nbllm.core import TokenLogprob
from nbllm.engine.backend import Context
from nbllm.engine.sequence import Sequence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Output(NamedTuple):
    """One wanted output of a step: its row in the batch, and the position in the sequence that it belongs to.

    Attributes:
        branch: the branch whose it is, None when it is of the job's own sequence.
    """

    row: int
    position: int
    branch: Sequence | None = None


class Distribution:
    """A row's log-probabilities, taken before sampling writes into it."""

    def __init__(self, logits: NDArray[np.float32], num_top: int) -> None:
        self._logprobs = log_softmax(logits)
        self._num_top = num_top

    def of(self, token: int, pieces: Mapping[int, bytes]) -> TokenLogprob:
        import numpy as np

        top: tuple[tuple[int, bytes, float], ...] = ()
        if self._num_top:
            best = np.argpartition(self._logprobs, -self._num_top)[-self._num_top :]
            best = best[np.argsort(-self._logprobs[best], kind="stable")]
            top = tuple((int(other), pieces[int(other)], float(self._logprobs[other])) for other in best)
        return TokenLogprob(token, pieces[token], float(self._logprobs[token]), top)


class Likelihoods:
    """Of tokens that are given, each under what stands before it, taken as the outputs come.

    Args:
        targets: by position: the token after it.
        first: the position whose token is the first that is wanted.
        num_top: likeliest rivals to report with each.
        before: entries that are known already, and come before all others.
    """

    def __init__(
        self,
        targets: Tokens[int],
        first: int,
        pieces: Mapping[int, bytes],
        num_top: int = 0,
        before: tuple[TokenLogprob, ...] = (),
    ) -> None:
        self._targets, self._first, self._pieces, self._num_top = targets, first, pieces, num_top
        self._before = before
        self._found: list[TokenLogprob] = []

    @property
    def found(self) -> tuple[TokenLogprob, ...]:
        return (*self._before, *self._found)

    def take(self, context: Context, outputs: Tokens[Output]) -> None:
        """Take a step's outputs; one that was taken before its sequence lost its state counts once."""
        for row, position, _ in outputs:
            if self._first + len(self._found) == position < len(self._targets):
                distribution = Distribution(context.logits(row), self._num_top)
                self._found.append(distribution.of(self._targets[position], self._pieces))


def chosen_logprobs(logits: NDArray[np.float32], tokens: Tokens[int]) -> list[float]:
    """Log-probabilities of a few tokens, at a tenth of what `log_softmax` costs: only the sum needs every logit."""
    import numpy as np

    top = float(logits.max())
    total = top + float(np.log(np.exp(logits - np.float32(top)).sum(dtype=np.float64)))
    return [float(logits[token]) - total for token in tokens]


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Natural logarithms of the softmax, in double precision."""
    import numpy as np

    shifted = logits.astype(np.float64) - float(logits.max())
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return result
