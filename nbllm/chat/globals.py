"""What a chat template can call: Hugging Face's two functions, and the few of Jinja's that templates use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import NoReturn

from nbllm.chat.budget import Budget, ProgramError, RefusalError
from nbllm.chat.values import Function, Namespace, Value, to_text

_MAX_RANGE = 100_000
_MAX_TIME_FORMAT = 200
# glibc's strftime takes a width (%1000000d), which would write as many characters.
_TIME_FORMAT = re.compile(r"(?:[^%]|%-?[a-zA-Z%])*")


def raise_exception(budget: Budget, /, message: Value = "no reason given") -> NoReturn:
    raise RefusalError(to_text(message, budget))


def strftime_now(budget: Budget, /, form: Value) -> str:
    if not isinstance(form, str) or len(form) > _MAX_TIME_FORMAT or not _TIME_FORMAT.fullmatch(form):
        raise ProgramError("strftime_now() needs a short format of plain % letters")
    return datetime.now().strftime(form)


def namespace(budget: Budget, /, *given: Value, **names: Value) -> Namespace:
    budget.items(8 * len(names))
    if given and not isinstance(given[0], dict):
        raise ProgramError("namespace() takes names and their values")
    return Namespace({**(given[0] if given else {}), **names})


def numbers(budget: Budget, /, *bounds: Value) -> list[int]:
    if not all(isinstance(bound, int) for bound in bounds):
        raise ProgramError("range() needs whole numbers")
    found = range(*bounds)
    if len(found) > _MAX_RANGE:
        raise ProgramError(f"range() of {len(found):,} numbers; at most {_MAX_RANGE:,}")
    budget.items(3 * len(found))
    return list(found)


def mapping(budget: Budget, /, **names: Value) -> dict[str, Value]:
    budget.items(8 * len(names))
    return names


GLOBALS: Mapping[str, Function] = {
    "raise_exception": Function("raise_exception", raise_exception),
    "strftime_now": Function("strftime_now", strftime_now),
    "namespace": Function("namespace", namespace),
    "range": Function("range", numbers),
    "dict": Function("dict", mapping),
}
