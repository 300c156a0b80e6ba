"""Native objects that are not lost to an interrupt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def owned(make: Callable[..., Any], free: Callable[[Any], object], *args: Any) -> Any:
    """What `make`, a C function, returns. If a signal's handler raises meanwhile, it is freed.

    Loading takes seconds, so that is when a person interrupts. The handler runs as soon as C has returned, before an
    assignment could give the pointer a name; but `extend` has put it into the list by then.
    """
    made: list[Any] = []
    try:
        made.extend(map(make, *([arg] for arg in args)))
    except BaseException:
        for pointer in made:
            if pointer:
                free(pointer)
        raise
    return made[0]
