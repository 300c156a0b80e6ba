"""What one run of a template may use: every operation pays before it does its work.

Two purses: `steps` is time (about a third of a microsecond each), `size` is bytes of text and lists that were ever
built, freed or not, so that it also bounds what is alive at once and what the string methods have to scan.
"""

from __future__ import annotations

_MAX_REASON = 300


class ProgramError(Exception):
    """Something a template did that ends its run; `line` is where, once a statement has seen it pass."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line

    @property
    def where(self) -> str:
        return f" at line {self.line}" if self.line else ""

    @property
    def in_a_line(self) -> str:
        """The problem, of which a template may have written any text."""
        text = " ".join(self.problem.split())
        return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}..."


class RefusalError(ProgramError):
    """The template itself called `raise_exception`: it does not want these messages."""


class ExhaustedError(ProgramError):
    """A purse is empty: other messages would not help."""


class Budget:
    """The purses of one run. Every method raises ExhaustedError when a purse is empty."""

    __slots__ = ("depth", "size", "steps")

    def __init__(self, steps: int, size: int) -> None:
        self.steps = steps
        self.size = size
        self.depth = 0

    def step(self, count: int) -> None:
        self.steps -= count
        if self.steps < 0:
            raise ExhaustedError("it runs too long; it may loop forever")

    def take(self, size: int) -> None:
        self.size -= size
        if self.size < 0:
            raise ExhaustedError("it builds too much text")

    def text(self, value: str) -> str:
        """Pay for a text that exists, and return it."""
        self.take(weight(value))
        return value

    def items(self, count: int) -> None:
        self.step(count >> 3)
        self.take(64 + 16 * count)


def weight(text: str) -> int:
    """Bytes that a text occupies at the most; `isascii` looks at a flag, not at the text."""
    return 64 + len(text) * (1 if text.isascii() else 4)
