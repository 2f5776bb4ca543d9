"""Who may connect and how much a request may carry."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from stream.errors import RequestRefused

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob: mediastream:; "
        "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


async def read_body(request: web.Request, limit_bytes: int) -> bytes:
    """Read a body of at most ``limit_bytes``; a longer one is not kept in memory.

    Raises:
        RequestRefused: 413.
    """
    refused = RequestRefused(413, f"the body may have {limit_bytes} bytes")
    if request.content_length is not None and request.content_length > limit_bytes:
        raise refused
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > limit_bytes:
            raise refused
    return bytes(body)


def check_origin(names: Collection[str]) -> Middleware:
    """Refuse requests under a foreign name, and changes asked for by a foreign page.

    A page on the web can let its own name resolve to this machine (DNS rebinding) and then
    counts as the same origin. So the ``Host`` must be an IP address, ``localhost`` or one of
    ``names``.

    Args:
        names: further host names that this server is reached by, without port.
    """
    known = {"localhost", *(name.lower() for name in names)}

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.host.lower()
        name = urlsplit(f"//{host}").hostname or ""
        if name not in known and not _is_address(name):
            raise RequestRefused(421, f"this server does not answer as {name!a}")
        origin = request.headers.get("Origin")
        is_change = request.method not in ("GET", "HEAD", "OPTIONS")
        if origin is not None and is_change and urlsplit(origin).netloc.lower() != host:
            raise RequestRefused(403, f"a page of {origin!a} may not use this server")
        return await handler(request)

    return middleware


@web.middleware
async def add_security_headers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Add the headers that keep a page to what it came for; nothing is cached unasked."""
    response = await handler(request)
    response.headers.update(SECURITY_HEADERS)
    response.headers.setdefault("Cache-Control", "no-cache")
    return response


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
