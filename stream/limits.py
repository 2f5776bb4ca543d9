"""Who may connect and how much a request may carry."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Collection
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError
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


# What a page of another origin may do and see (RFC 9725, section 4.7).
_CORS_ANSWER = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
    "Access-Control-Max-Age": "600",
}
# A bracketed address or a name, and a port; nothing that a URL could have beside them.
_HOST = re.compile(
    r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>\d{1,5}))?"
)
_PORTS = {"http": 80, "https": 443}
BODY_TIMEOUT_S = 10.0
_CORS_EXPOSED = "Location, Link, ETag, Retry-After, Accept-Post"


async def read_body(request: web.Request, limit_bytes: int) -> bytes:
    """Read a body of at most ``limit_bytes``; a longer one is not kept in memory.

    Raises:
        RequestRefused: 413, or 408 after 10 s, or 400 for a body that is not what its headers
            say or that breaks off.
    """
    refused = RequestRefused(413, f"the body may have {limit_bytes} bytes")
    if request.content_length is not None and request.content_length > limit_bytes:
        raise refused
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit_bytes:
                    raise refused
    except TimeoutError:
        raise RequestRefused(408, f"the body did not come within {BODY_TIMEOUT_S:g} s") from None
    except (web.RequestPayloadError, ContentEncodingError, ConnectionError) as error:
        raise RequestRefused(400, f"the body cannot be read: {error}") from None
    return bytes(body)


def check_origin(names: Collection[str], origins: Collection[str] = ()) -> Middleware:
    """Refuse requests under a foreign name, and changes asked for by a foreign page.

    A page on the web can let its own name resolve to this machine (DNS rebinding) and then
    counts as the same origin. So the ``Host`` must be an IP address, ``localhost`` or one of
    ``names``; nobody's name resolves to those but through this machine or its network.

    Args:
        names: further host names that this server is reached by, without port.
        origins: pages elsewhere that may ask for changes.
    """
    known = {"localhost", *(_to_name(name) for name in names)}

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        # Not request.host: where there is no such header, it waits for the system's resolver.
        host = request.headers.get("Host", "")
        name, port = _split_host(host)
        if name not in known and not _is_address(name):
            raise RequestRefused(421, f"this server does not answer as {name or host!a}")
        origin = request.headers.get("Origin")
        is_change = request.method not in ("GET", "HEAD", "OPTIONS")
        is_own = origin is None or origin in origins or _is_same(origin, name, port)
        if is_change and not is_own:
            raise RequestRefused(403, f"a page of {origin!a} may not use this server")
        return await handler(request)

    return middleware


def add_cors(origins: Collection[str]) -> Middleware:
    """Let pages of some origins use this server, and read what it answers (Fetch, CORS)."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        origin = request.headers.get("Origin")
        if origins:
            response.headers["Vary"] = "Origin"
        if origin is not None and origin in origins:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = _CORS_EXPOSED
            if request.method == "OPTIONS":
                response.headers.update(_CORS_ANSWER)
        return response

    return middleware


@web.middleware
async def add_security_headers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Add the headers that keep a page to what it came for; nothing is cached unasked."""
    response = await handler(request)
    response.headers.update(SECURITY_HEADERS)
    response.headers.setdefault("Cache-Control", "no-cache")
    return response


def _split_host(host: str) -> tuple[str, int | None]:
    """Split a ``Host`` (RFC 9110, section 7.2) into name and port; no name: it is none."""
    match = _HOST.fullmatch(host)
    if match is None:
        return "", None
    port = match["port"]
    return _to_name(match["address"] or match["name"]), int(port) if port else None


def _is_same(origin: str, name: str, port: int | None) -> bool:
    """Tell whether a page came from the host that it asks; a scheme's own port may be left out."""
    try:
        parts = urlsplit(origin)
        given = parts.port
    except ValueError:
        return False
    usual = _PORTS.get(parts.scheme)
    return (
        usual is not None
        and _to_name(parts.hostname or "") == name
        and (given or usual) == (port or usual)
    )


def _to_name(name: str) -> str:
    """Return a host's name as it is compared: case and the dot of the root do not matter."""
    return name.lower().removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
