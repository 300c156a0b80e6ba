"""How far a pull is, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Status = Literal["resolving", "waiting", "downloading", "checking", "done"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PullProgress:
    """One moment of a pull.

    Args:
        status: "resolving": the hub or the registry is asked for its list of files; "waiting": for another pull of
            them; "downloading": of `file`; "checking": a file that is here already; "done".
        file: its name, without folders; "" before files are known.
        sha256: of the file, as the hub or the registry has it.
        done, total: bytes of this file.
        name: what the model is called from now on; only of "done".
        notes: what a person should know of it besides, a line each; only of "done".
    """

    status: Status
    file: str = ""
    sha256: str = ""
    done: int = 0
    total: int = 0
    name: str = ""
    notes: tuple[str, ...] = ()


OnProgress = Callable[[PullProgress], None]
"""Called in the thread that pulls, as often as bytes arrive. What it raises ends the pull; what has come is kept."""


def ignored(progress: PullProgress) -> None:
    """For a pull that nobody watches."""
