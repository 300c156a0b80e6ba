"""The keyword options that every verb takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from nbllm.core import RANGES, unknown_option
from nbllm.errors import ParameterError
from nbllm.frames.asks import RunOptions
from nbllm.frames.schemas import Shape
from nbllm.frames.using import check_model
from nbllm.session.options import CONSTRAINTS, OPTIONS, TOOLS
from nbllm.session.requests import Options

_RUN = tuple(spec.name for spec in fields(RunOptions) if spec.name not in ("label", "watch"))
_OWN = ("model", "examples", "details", "overwrite", *_RUN)
_ONE_TEXT = "a row has room for one text; for several answers repeat the rows, for tools use nbllm.Model.chat"
_NOT_HERE = ("n", "continue_final", *TOOLS)
_NUMBERS_ONLY = ("model", "details", "overwrite", "timeout", *_RUN)
_ELSEWHERE = {
    "stream": "a table's answers come together; progress=True shows how far it is, background=True gives a Job",
}
_ROOM, _ROOM_OF_A_FIELD = 512, 64
"""Tokens for an answer that has a form. A small model may never come to its end: it writes on in a text or a list."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to ask and how to run, apart from what is asked.

    Attributes:
        seed: from which each row's is made, with the row's content.
        examples: a DataFrame of rows with their answers, or None.
        details: whether the columns that tell of each answer are wanted.
        overwrite: whether new columns may take the place of others.
    """

    model: Any
    options: Options
    seed: int
    examples: Any
    details: bool
    overwrite: bool
    run: RunOptions

    @classmethod
    def of(cls, given: Mapping[str, Any], **decided: Any) -> Settings:
        """Sort what was typed; the temperature is 0 unless it says otherwise (None: the model's own).

        An answer that has a form has a largest length too: 512 tokens, or 64 a field, unless `max_tokens` says
        otherwise (None: as far as the context goes).

        Args:
            decided: what the verb itself says to the model's options; a constraint here leaves no room for another.

        Raises:
            ParameterError: an option is unknown, out of range, or the verb's own affair.
            ConstraintError: the form cannot be guaranteed.
            ModelNotFoundError: a job would find no such model.
        """
        _check_names(given, [*_OWN, *OPTIONS], hidden=CONSTRAINTS if decided else ())
        if decided:
            _refuse(given, CONSTRAINTS, "this verb says itself what shape the answer has; leave it out, or use map")
        typed = {name: value for name, value in given.items() if name in OPTIONS and name != "seed"}
        made = Options.of({"temperature": 0, **typed, **decided})
        return cls._made(given, made if "max_tokens" in given else _with_room(made), given.get("seed", 0))

    @classmethod
    def of_numbers(cls, given: Mapping[str, Any]) -> Settings:
        """For what generates no text, and so has none of its options but `timeout`."""
        _check_names(given, _NUMBERS_ONLY)
        return cls._made(given, Options.of({"timeout": given.get("timeout")}), 0)

    @classmethod
    def _made(cls, given: Mapping[str, Any], options: Options, seed: Any) -> Settings:
        for name in ("details", "overwrite"):
            if not isinstance(given.get(name, False), bool):
                raise ParameterError(name, f"must be True or False, not {given[name]!r:.100}")
        model, run = given.get("model"), RunOptions(**{name: given[name] for name in _RUN if name in given})
        if run.background:
            check_model(model)
        return cls(
            model=model,
            options=options,
            seed=int(RANGES["seed"].checked("seed", seed)),
            examples=given.get("examples"),
            details=given.get("details", False),
            overwrite=given.get("overwrite", False),
            run=run,
        )


def _with_room(options: Options) -> Options:
    """Options of which the answer's form, if it has one, says how long it may get. Choices have an end themselves."""
    shape = Shape.of(options.constraint)
    if shape is None or shape.choices:
        return options
    room = max(_ROOM, _ROOM_OF_A_FIELD * len(shape.fields))
    return replace(options, sampling=replace(options.sampling, max_tokens=room))


def _check_names(given: Mapping[str, Any], known: Sequence[str], hidden: Sequence[str] = ()) -> None:
    """Refuse unknown options.

    Args:
        hidden: those that are known, and refused elsewhere.
    """
    _refuse(given, _NOT_HERE, _ONE_TEXT)
    for name in given:
        if name in _ELSEWHERE:
            raise ParameterError(name, _ELSEWHERE[name])
        if name not in known or name in _NOT_HERE:
            offered = [option for option in known if option not in (*_NOT_HERE, *hidden)]
            raise ParameterError(name, unknown_option(name, offered))


def _refuse(given: Mapping[str, Any], names: Sequence[str], why: str) -> None:
    for name in names:
        if given.get(name) is not None:
            raise ParameterError(name, why)
