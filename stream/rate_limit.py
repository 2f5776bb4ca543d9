"""How often one address may ask for what costs: token buckets, and whose address it is."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from stream.bucket import Bucket
from stream.errors import RateExceeded
from stream.exposure import Network

MAX_BUCKETS = 8192
"""One is some 200 bytes; beyond, the one that was asked of longest ago is forgotten."""
MAX_HOPS = 16
"""Of ``X-Forwarded-For``, from its end; nobody has a chain of more proxies."""
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something may be asked for."""

    what: str
    """In words, for who asks too often."""
    burst: int
    """So many at once."""
    per_second: float
    """So many from then on."""


OFFERS = Rate("offers", burst=30, per_second=1.0)
"""A new session costs 3 ms of the event loop and a socket."""
PREVIEWS = Rate("previews", burst=120, per_second=6.0)
"""A page asks for one of each style, and again when it is told to."""
LOADS = Rate("changes of the model", burst=6, per_second=0.1)
CLIPS = Rate("clips", burst=6, per_second=0.2)
"""30 s are put together, 32 MiB at most."""
SNAPSHOTS = Rate("snapshots", burst=30, per_second=5.0)
"""A large picture takes 20 ms of a processor."""
CHANGES = Rate("changes", burst=120, per_second=20.0)
"""Settings, candidates, ends, and whatever else is no mere question: a slider that is
dragged asks some ten times a second."""


class TokenBuckets:
    """One bucket for each pair of a rate and an address; bounded, no lock, no clock of its own."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        # Whoever was asked of last is at the end.
        self._buckets: OrderedDict[tuple[str, str], Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, rate: Rate, address: str) -> float:
        """Take one token.

        Returns:
            0, or for how many seconds there is none; nothing is taken then.
        """
        key = (rate.what, address)
        bucket = self._buckets.pop(key, None) or Bucket(rate.burst, rate.per_second)
        self._buckets[key] = bucket
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return bucket.take(self._now_s())


def limit_rates(buckets: TokenBuckets, proxies: Sequence[Network]) -> Middleware:
    """Refuse what an address asks for too often: 429, and when to come again (RFC 6585)."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        rate = find_rate(request.method, request.path)
        if rate is not None:
            address = to_key(find_address(request, proxies))
            wait_s = buckets.take(rate, address)
            if wait_s > 0:
                raise RateExceeded(
                    f"too many {rate.what} came from your address: {rate.burst} at once and "
                    f"{rate.per_second * 60:g} a minute are allowed",
                    math.ceil(wait_s),
                )
        return await handler(request)

    return middleware


def find_rate(method: str, path: str) -> Rate | None:
    """Return how often a request may be made; None: as often as you like, it costs nothing."""
    if method in ("GET", "HEAD", "OPTIONS"):
        return SNAPSHOTS if path.endswith("/snapshot") else None
    if method == "POST":
        if path in ("/sessions", "/whip") or path.startswith("/whep/"):
            return OFFERS
        if path == "/api/preview":
            return PREVIEWS
        if path.startswith("/api/models/"):
            return LOADS
        if path.endswith("/actions/clip"):
            return CLIPS
    return CHANGES


def find_address(request: web.Request, proxies: Sequence[Network]) -> str:
    """Return who asks: the peer, or whom the trusted proxies say that they ask for.

    ``X-Forwarded-For`` is read from its end, where the nearest proxy wrote, up to the first
    address that is no trusted proxy: what lies before it, anybody may have made up.
    """
    hops = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
    address = request.remote or UNKNOWN
    for hop in reversed(hops[-MAX_HOPS:]):
        parsed = parse_address(address)
        if parsed is None or not any(parsed in proxy for proxy in proxies):
            break
        if parse_address(hop) is None:
            break  # the proxy itself is to be held to account
        address = hop
    return address.strip()


def to_key(address: str) -> str:
    """Return what counts as one address: of IPv6 the /64 that a household is given."""
    parsed = parse_address(address)
    if parsed is None:
        return UNKNOWN
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))


def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read an address, with or without a port; IPv4 in IPv6 is IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
