"""How often an address may present a wrong key.

This sheds noise and load; what keeps a key safe is its length. So a right key is never refused for the wrong ones
that came from its address: behind one proxy, everybody has the same.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple


class _Bucket(NamedTuple):
    tokens: float
    filled_at: float


class Attempts:
    """A bucket of tokens for each address, from which every failure takes one.

    Args:
        limit: failures in a row that go unpunished.
        per_s: the time in which an empty bucket fills up.
        max_addresses: beyond it, those that failed longest ago are forgotten.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        limit: int = 10,
        per_s: float = 60.0,
        *,
        max_addresses: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._tokens_per_s = limit / per_s
        self._max_addresses = max_addresses
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()  # oldest failure first

    def charge(self, address: str) -> float:
        """Count one failure: 0 while the address may go on, else the seconds until it may fail again."""
        now = self._clock()
        name = _network(address)
        bucket = self._buckets.pop(name, _Bucket(self._limit, now))
        tokens = min(self._limit, bucket.tokens + (now - bucket.filled_at) * self._tokens_per_s)
        is_within = tokens >= 1
        self._buckets[name] = _Bucket(tokens - 1 if is_within else tokens, now)
        if len(self._buckets) > self._max_addresses:
            self._buckets.popitem(last=False)
        return 0.0 if is_within else (1 - tokens) / self._tokens_per_s


def _network(address: str) -> str:
    """Who counts as one: an IPv4 address, or the /64 network that one IPv6 customer has all of."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a Unix socket's peer, or what a proxy wrote
        return address[:64]
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_address(int(parsed) >> 64 << 64))
