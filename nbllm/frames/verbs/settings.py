"""The keyword options that every verb takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from nbllm.core import RANGES, unknown_option
from nbllm.errors import ParameterError
from nbllm.frames.asks import RunOptions
from nbllm.session.options import CONSTRAINTS, OPTIONS, TOOLS
from nbllm.session.requests import Options

_RUN = tuple(spec.name for spec in fields(RunOptions) if spec.name not in ("label", "watch"))
_OWN = ("model", "examples", "details", *_RUN)
_ONE_TEXT = "a row has room for one text; for several answers repeat the rows, for tools use nbllm.Model.chat"
_NOT_HERE = ("n", "continue_final", *TOOLS)
_NUMBERS_ONLY = ("model", "details", "timeout", *_RUN)


@dataclass(frozen=True, slots=True)
class Settings:
    """How to ask and how to run, apart from what is asked.

    Attributes:
        seed: from which each row's is made, with the row's content.
        examples: a DataFrame of rows with their answers, or None.
        details: whether the columns that tell of each answer are wanted.
    """

    model: Any
    options: Options
    seed: int
    examples: Any
    details: bool
    run: RunOptions

    @classmethod
    def of(cls, given: Mapping[str, Any], **decided: Any) -> Settings:
        """Sort what was typed; the temperature is 0 unless it says otherwise (None: the model's own).

        Args:
            decided: what the verb itself says to the model's options; a constraint here leaves no room for another.

        Raises:
            ParameterError: an option is unknown, out of range, or the verb's own affair.
        """
        _check_names(given, [*_OWN, *OPTIONS])
        if decided:
            _refuse(given, CONSTRAINTS, "this verb says itself what shape the answer has; leave it out, or use map")
        options = {"temperature": 0, **decided}
        options.update((name, value) for name, value in given.items() if name in OPTIONS and name != "seed")
        return cls._made(given, Options.of(options), given.get("seed", 0))

    @classmethod
    def of_numbers(cls, given: Mapping[str, Any]) -> Settings:
        """For what generates no text, and so has none of its options but `timeout`."""
        _check_names(given, _NUMBERS_ONLY)
        return cls._made(given, Options.of({"timeout": given.get("timeout")}), 0)

    @classmethod
    def _made(cls, given: Mapping[str, Any], options: Options, seed: Any) -> Settings:
        details = given.get("details", False)
        if not isinstance(details, bool):
            raise ParameterError("details", f"must be True or False, not {details!r:.100}")
        return cls(
            model=given.get("model"),
            options=options,
            seed=int(RANGES["seed"].checked("seed", seed)),
            examples=given.get("examples"),
            details=details,
            run=RunOptions(**{name: given[name] for name in _RUN if name in given}),
        )


def _check_names(given: Mapping[str, Any], known: list[str] | tuple[str, ...]) -> None:
    _refuse(given, _NOT_HERE, _ONE_TEXT)
    offered = [name for name in known if name not in _NOT_HERE]
    for name in given:
        if name not in offered:
            raise ParameterError(name, unknown_option(name, offered))


def _refuse(given: Mapping[str, Any], names: tuple[str, ...], why: str) -> None:
    for name in names:
        if given.get(name) is not None:
            raise ParameterError(name, why)
