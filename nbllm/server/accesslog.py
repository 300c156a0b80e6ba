"""One line for each request: who, what, how much, how long. Never a word of a prompt or an answer.

key=laptop user="Bob M" POST /v1/chat/completions model=smollm2 status=200 prompt=12 completion=64 ms=812
"""

from __future__ import annotations

import re

_MAX_LENGTH = 64
_PLAIN = re.compile(r"[A-Za-z0-9._:/@+-]+")


def access_line(
    *,
    key: str,
    method: str,
    path: str,
    status: int,
    duration_s: float,
    user: str | None = None,
    model: str | None = None,
    prompt_tokens: int | None = None,
    completion_tokens: int | None = None,
) -> str:
    """One line of visible characters, in which no value can pass for another field.

    Log it as an argument (`log.info("%s", line)`): it may hold a percent sign.

    Args:
        key: an Access's `name`.
        path: what follows a "?" is left out, since Jupyter takes its token there.
        user: as the client called its user; cut to 64 characters, as are the others.
    """
    request = f"{shown(method)} {shown(path.partition('?')[0])}"
    fields = {"model": model, "status": status, "prompt": prompt_tokens, "completion": completion_tokens}
    parts = [f"key={shown(key)}", f"user={shown(user)}" if user else "", request]
    parts += [f"{name}={shown(str(value))}" for name, value in fields.items() if value is not None]
    return " ".join(part for part in [*parts, f"ms={duration_s * 1000:.0f}"] if part)


def shown(value: str) -> str:
    """The first 64 characters, quoted unless they are all plain; whatever is not visible becomes its escape."""
    cut = value if len(value) <= _MAX_LENGTH else value[: _MAX_LENGTH - 1] + "…"
    return cut if _PLAIN.fullmatch(cut) else '"' + "".join(map(_escaped, cut)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():  # of the spaces, only the plain one is
        return character
    return character.encode("unicode_escape").decode("ascii")
