"""What a key may do, by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, cast, get_args

from nbllm.core import unknown_option
from nbllm.errors import ParameterError

Scope = Literal["chat", "embeddings", "models", "kernel", "manage"]

MEANINGS: dict[Scope, str] = {
    "chat": "chat and text completions, counting tokens",
    "embeddings": "embeddings",
    "models": "list the models",
    "kernel": "be answered by an engine that lives in a notebook's kernel",
    "manage": "download, create, copy and delete models",
}
ALL_SCOPES: frozenset[Scope] = frozenset(get_args(Scope))
USUAL_SCOPES: tuple[Scope, ...] = ("chat", "embeddings", "models")
"""Of a key made without saying which, and of a client that needs no key. Neither may reach a kernel: a request that
aborts the engine there would take a person's variables with it."""


def parse_scopes(names: Iterable[str]) -> tuple[Scope, ...]:
    """The scopes of these names, each once, in the order in which they are documented.

    Raises:
        ParameterError: there is none, or one is unknown.
    """
    asked = set(names)
    for name in sorted(asked - ALL_SCOPES):
        raise ParameterError("scopes", f"{name[:40]!r} {unknown_option(name[:40], list(MEANINGS))}")
    if not asked:
        raise ParameterError("scopes", f"a key without any opens nothing; choose from {', '.join(MEANINGS)}")
    return tuple(scope for scope in MEANINGS if scope in cast("set[Scope]", asked))
