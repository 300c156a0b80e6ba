"""From `POST /api/pull` to a pull, and from how far that is to lines."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from nbllm.store.pulling import PullProgress
from nbllm.wire.decoding import unknown_keys
from nbllm.wire.ollama.listing import untagged
from nbllm.wire.ollama.manage import SUCCESS, download_body, status_body
from nbllm.wire.ollama.shapes import PullBody, model_of, parsed


@dataclass(frozen=True, slots=True, kw_only=True)
class PullCall:
    """A model that a client wants here.

    Attributes:
        model: as the client named it; `name` is without the tag that goes without saying.
        unknown: keys that mean nothing here, fit for the log.
    """

    model: str
    name: str
    stream: bool
    unknown: tuple[str, ...] = ()


def parse_pull(data: bytes) -> PullCall:
    """Read a request. Raises as `calls.parse_generate` does. `insecure` changes nothing: every file is checked."""
    body, raw = parsed(data, PullBody)
    name = model_of(body).strip()
    return PullCall(
        model=name, name=untagged(name), stream=body.stream is not False, unknown=unknown_keys(raw, PullBody)
    )


async def pull_lines(progress: AsyncGenerator[PullProgress]) -> AsyncGenerator[dict[str, Any]]:
    """What is told of a pull. Raises what ends it.

    The first line waits until it is known which files there are: a name that means none has its own status.
    """
    has_begun = False
    async with aclosing(progress):
        async for now in progress:
            if now.status == "resolving":
                continue
            if not has_begun:
                has_begun = True
                yield status_body("pulling manifest")
            if now.status == "downloading":
                yield download_body(now.sha256, total=now.total, completed=now.done)
            elif now.status == "waiting":
                yield status_body("waiting for another pull of it")
            elif now.status == "checking":
                yield status_body("verifying sha256 digest")
            else:
                for status in ("writing manifest", *now.notes):
                    yield status_body(status)
    yield status_body(SUCCESS)
