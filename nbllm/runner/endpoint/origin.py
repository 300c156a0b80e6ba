"""What an engine over a URL is made of."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Origin:
    """The arguments of an `EndpointEngine`, with which another process makes one like it. Holds the key, unseen."""

    base_url: str
    model: str | None
    api_key: str | None = field(repr=False)
    key_name: str
    max_concurrency: int
    timeout_s: float | None
    max_retries: int
