"""How many requests each key has in flight."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbllm.server.keys import Key


class KeySlots:
    """How many requests of each key are being answered. For one thread: the server's event loop."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()

    def acquire(self, key: Key | None) -> Lease | None:
        """A place for one more request; None where the key has no more. Without a key there is always one."""
        if key is None or key.max_concurrent is None:
            return Lease(None, self._taken)
        if self._taken[key.id] >= key.max_concurrent:
            return None
        self._taken[key.id] += 1
        return Lease(key.id, self._taken)


class Lease:
    """A place that a request has; leaving it, or `release()`, gives it back once."""

    def __init__(self, key_id: str | None, taken: Counter[str]) -> None:
        self._key_id = key_id
        self._taken = taken

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        if self._key_id is None:
            return
        self._taken[self._key_id] -= 1
        if not self._taken[self._key_id]:
            del self._taken[self._key_id]  # so that revoked keys leave nothing behind
        self._key_id = None
