"""The toy's context: slots that hold tokens, and logits that are a function of what is really stored in them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from nbllm.core import Adapter, Row, StepStatus
from nbllm.errors import EngineError
from nbllm.testing.vocabulary import (
    EMBEDDING_LENGTH,
    VOCABULARY_SIZE,
    mixed,
    noise,
    toy_logits,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class _Cell(NamedTuple):
    """One stored token. `state` sums up this token and all before it; shared cells are the same object."""

    token: int
    state: int


class _Stored:
    """What a slot holds. Tokens before `oldest` have left the window."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.cells: list[_Cell] = []
        self.oldest = 0

    @property
    def state(self) -> int:
        return self.cells[-1].state if self.cells else self._seed

    def push(self, token: int, window: int | None) -> None:
        self.cells.append(_Cell(token, mixed(self.state, token, len(self.cells))))
        if window is not None:
            self.oldest = max(self.oldest, len(self.cells) - window)


class Host(Protocol):
    """What a context needs to know of its backend."""

    max_batch: int
    ends: float
    window: int | None
    recurrent: bool
    fail_after: int | None


class ToyContext:
    """Strict about positions, slots and threads, and as unhelpful as llama.cpp when it is full, aborted or uncuttable.

    Attributes:
        num_steps: batches evaluated.
        num_evaluated: tokens evaluated, paddings included.
        during_decode: called in the middle of a step, as another thread might act then.
        adapters: that it computes with.
    """

    def __init__(
        self, backend: Host, *, kv_tokens: int, num_slots: int, unified: bool, adapters: Sequence[Adapter] = ()
    ) -> None:
        self.adapters = tuple(adapters)
        self._seed = _seed(self.adapters)
        self.max_batch, self.num_slots = backend.max_batch, num_slots
        self.num_steps = self.num_evaluated = 0
        self.most_cells = 0
        self.is_closed = False
        self.threads = 0
        self.during_decode: Callable[[], None] | None = None
        self._backend, self._unified, self._kv_tokens = backend, unified, kv_tokens
        self._slots = [_Stored(self._seed) for _ in range(num_slots)]
        self._outputs: dict[int, int] = {}
        self._rows: dict[int, NDArray[np.float32]] = {}
        self._aborted = False
        self._thread: int | None = None

    @property
    def pool_capacity(self) -> int:
        return self._kv_tokens if self._unified else self._kv_tokens * self.num_slots

    @property
    def cells(self) -> int:
        """Cells in use, a shared one counted once."""
        return len({id(cell) for stored in self._slots for cell in stored.cells})

    def tokens(self, slot: int) -> list[int]:
        """What the slot holds."""
        return [cell.token for cell in self._slots[slot].cells]

    def set_threads(self, threads: int) -> None:
        self.threads = threads

    def decode(self, rows: Sequence[Row], *, embeddings: bool = False) -> StepStatus:
        self._check_thread()
        self._check_rows(rows)
        if not self._has_room(rows):
            return StepStatus.FULL
        if self.during_decode is not None:
            self.during_decode()
        if self._aborted:  # what was computed until then stays in the memory, as llama.cpp leaves it
            self._evaluate(rows[: len(rows) // 2])
            return StepStatus.ABORTED
        self.num_steps += 1
        if self._backend.fail_after is not None and self.num_steps > self._backend.fail_after:
            raise EngineError(f"the toy model was told to fail after {self._backend.fail_after} steps")
        self._evaluate(rows)
        return StepStatus.OK

    def abort(self, wanted: bool = True) -> None:
        self._aborted = wanted

    def logits(self, row: int) -> NDArray[np.float32]:
        """Writable, as llama.cpp's are: what a mask writes, the sampler sees."""
        if row not in self._rows:
            self._rows[row] = toy_logits(self._output(row), self._backend.ends)
        return self._rows[row]

    def embedding(self, row: int) -> NDArray[np.float32]:
        return noise(self._output(row), EMBEDDING_LENGTH)

    def cut(self, slot: int, length: int) -> bool:
        self._check_thread()
        stored = self._slots[slot]
        held = len(stored.cells)
        if 0 < length < held and self._is_cuttable(stored, length):
            del stored.cells[length:]
        elif length == 0 or length != held:
            self.forget(slot)
            return length == 0
        return True

    def forget(self, slot: int) -> None:
        self._check_thread()
        self._slots[slot] = _Stored(self._seed)

    def fork(self, source: int, target: int, length: int) -> bool:
        if not self._unified:
            return self.restore(target, self.save(source), length)
        copy = _Stored(self._seed)
        copy.cells, copy.oldest = list(self._slots[source].cells), self._slots[source].oldest
        self._slots[target] = copy
        return self.cut(target, length)

    def save(self, slot: int) -> bytes:
        self._check_thread()
        import numpy as np

        stored = self._slots[slot]
        return np.array([self._seed, stored.oldest, *self.tokens(slot)], np.int64).tobytes()

    def restore(self, slot: int, state: bytes, length: int) -> bool:
        import numpy as np

        self.forget(slot)
        seed, oldest, *tokens = np.frombuffer(state, np.int64).tolist()
        if seed != self._seed:
            raise EngineError("a state that was computed with other adapters")
        if not self._has_room([Row(token, place, slot, False) for place, token in enumerate(tokens)]):
            return False
        for token in tokens:
            self._slots[slot].push(token, self._backend.window)
        self._slots[slot].oldest = oldest
        self._note_cells()
        return self.cut(slot, length)

    def close(self) -> None:
        self.is_closed = True

    # ---- inside

    def _check_thread(self) -> None:
        if self.is_closed:
            raise EngineError("the context is closed")
        self._thread = self._thread or threading.get_ident()
        if self._thread != threading.get_ident():
            raise EngineError("two threads use one context, which would abort the process")

    def _check_rows(self, rows: Sequence[Row]) -> None:
        if not 0 < len(rows) <= self.max_batch:
            raise EngineError(f"a batch of {len(rows)} tokens; 1 to {self.max_batch} are allowed")
        expected = {slot: len(stored.cells) for slot, stored in enumerate(self._slots)}
        for row in rows:
            if expected.get(row.slot) != row.position or not 0 <= row.token < VOCABULARY_SIZE:
                raise EngineError(f"{row} does not continue its slot, which holds {expected.get(row.slot)} tokens")
            expected[row.slot] += 1

    def _has_room(self, rows: Sequence[Row]) -> bool:
        if self._unified:
            return self.cells + len(rows) <= self._kv_tokens
        held = [len(stored.cells) + sum(row.slot == slot for row in rows) for slot, stored in enumerate(self._slots)]
        return max(held) <= self._kv_tokens

    def _evaluate(self, rows: Sequence[Row]) -> None:
        self._outputs, self._rows = {}, {}
        for index, row in enumerate(rows):
            self._slots[row.slot].push(row.token, self._backend.window)
            if row.output:
                self._outputs[index] = self._slots[row.slot].state
        self.num_evaluated += len(rows)
        self._note_cells()

    def _note_cells(self) -> None:
        self.most_cells = max(self.most_cells, self.cells)

    def _output(self, row: int) -> int:
        self._check_thread()
        if row not in self._outputs:
            raise EngineError(f"row {row} has no output")
        return self._outputs[row]

    def _is_cuttable(self, stored: _Stored, length: int) -> bool:
        if self._backend.recurrent:
            return False
        return self._backend.window is None or stored.oldest <= max(0, length - self._backend.window)


def _seed(adapters: Sequence[Adapter]) -> int:
    """0 for none: what the toy says with adapters is something else from the first token on."""
    if not adapters:
        return 0
    told = "\n".join(f"{adapter.path} {adapter.scale}" for adapter in adapters)
    return int.from_bytes(hashlib.blake2b(told.encode("utf-8", "replace"), digest_size=7).digest(), "little")
