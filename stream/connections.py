"""How many HTTP connections are open: bounded, and those that ask for nothing make way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import web
from aiohttp.typedefs import Handler
from aiohttp.web_protocol import RequestHandler

from stream.exposure import Network
from stream.rate_limit import parse_address, to_key

MAX_CONNECTIONS = 512
"""Each is a file descriptor and some 20 kB. A browser has up to six."""
MAX_OF_ADDRESS = 64


class Connections:
    """Closes a connection for each that is one too many; used on the event loop.

    The one without a request for longest makes way; where all are at work, the new one. So
    who only holds connections open keeps nobody out.
    """

    def __init__(self, proxies: Sequence[Network] = ()) -> None:
        """Count nothing yet.

        Args:
            proxies: may have more connections than one address.
        """
        self._proxies = proxies
        # By connection; those without a request in the order in which they last had one.
        self._addresses: dict[RequestHandler, str] = {}
        self._idle: dict[RequestHandler, None] = {}

    def watch(self, server: web.Server) -> None:
        """Watch over a server to which nobody is connected yet."""
        self._made, self._lost = server.connection_made, server.connection_lost
        server.connection_made = self._connection_made  # type: ignore[method-assign]
        server.connection_lost = self._connection_lost  # type: ignore[method-assign]

    def __len__(self) -> int:
        return len(self._addresses)

    def began(self, connection: RequestHandler) -> None:
        """Note that a connection has a request."""
        self._idle.pop(connection, None)

    def ended(self, connection: RequestHandler) -> None:
        """Note that its request is answered."""
        if connection in self._addresses:
            self._idle[connection] = None

    def _connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        self._made(handler, transport)
        peer = transport.get_extra_info("peername")
        address = to_key(peer[0] if peer else "")
        self._addresses[handler] = address
        self._idle[handler] = None
        if self._is_bounded(address) and self._count(address) > MAX_OF_ADDRESS:
            self._make_way(handler, address)
        elif len(self) > MAX_CONNECTIONS:
            self._make_way(handler, None)

    def _connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        self._forget(handler)
        self._lost(handler, exc)

    def _make_way(self, newest: RequestHandler, address: str | None) -> None:
        """Close an idle connection, of one address or of any, or else the newest."""
        idle = (each for each in self._idle if address in (None, self._addresses[each]))
        victim = next(idle, newest)
        self._forget(victim)
        # Not before it has begun: aiohttp starts its task after it has told of it.
        asyncio.get_running_loop().call_soon(victim.force_close)

    def _forget(self, connection: RequestHandler) -> None:
        self._addresses.pop(connection, None)
        self._idle.pop(connection, None)

    def _count(self, address: str) -> int:
        return sum(each == address for each in self._addresses.values())

    def _is_bounded(self, address: str) -> bool:
        parsed = parse_address(address.partition("/")[0])
        if parsed is None or parsed.is_loopback:
            return False
        return not any(parsed in proxy for proxy in self._proxies)


CONNECTIONS = web.AppKey("connections", Connections)


@web.middleware
async def note_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell the application's :class:`Connections` which of them are at work."""
    connections = request.app[CONNECTIONS]
    connections.began(request.protocol)
    try:
        return await handler(request)
    finally:
        connections.ended(request.protocol)
