"""Who may ask for what: the token of a request, and whose session it may steer."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from stream.errors import SessionUnknown, TokenRefused
from stream.session import Session
from stream.tokens import Token, Tokens

# What is answered without a token: the page itself and what it shows before it has one. All
# else needs it, so that a new route is guarded from its first day.
_OPEN = (
    "/",
    "/{name}",
    "/view/{id}",
    "/healthz",
    "/readyz",
    "/api/styles",
    "/api/models",
    "/api/regions",
    "/api/keeping",
)
# Whose session it is does not matter to who watches.
_OWNED = ("/sessions/{id}", "/whip/{id}", "/whep/{id}/{viewer}")
_TOKEN = web.RequestKey("token", Token)


def check_token(tokens: Tokens) -> Middleware:
    """Refuse requests without a token (RFC 6750, section 2.1), but for the page itself.

    Args:
        tokens: those that are right; none: all requests pass.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        # A browser asks OPTIONS by itself, without what the page sends.
        if tokens and request.method != "OPTIONS" and _route_of(request) not in (None, *_OPEN):
            scheme, _, given = request.headers.get("Authorization", "").partition(" ")
            token = tokens.find(given.strip())
            if scheme.lower() != "bearer" or token is None:
                raise TokenRefused(
                    "this server asks for its token: send it as Authorization: Bearer TOKEN, "
                    "or open the page with # and the token after its address",
                    was_given=bool(scheme),
                )
            request[_TOKEN] = token
        return await handler(request)

    return middleware


def check_owner(find: Callable[[str], Session | None]) -> Middleware:
    """Let a session be steered by the token that opened it, and by the operator's.

    Names of sessions can be guessed; to others such a session is not there.

    Args:
        find: returns the session of an id or a name, if there is one.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        token = token_of(request)
        if token is not None and not token.is_operator:
            path = request.match_info
            if (_route_of(request) or "").startswith(_OWNED):
                session = find(path.get("viewer") or path["id"])
                if session is not None and session.token != token:
                    raise SessionUnknown("there is no such session; it may have ended")
        return await handler(request)

    return middleware


def token_of(request: web.Request) -> Token | None:
    """Return the token that a request has brought; None: the route asks for none."""
    return request.get(_TOKEN)


def _route_of(request: web.Request) -> str | None:
    """Return the path of the route, with its parameters by name; None: there is no route."""
    resource = request.match_info.route.resource
    return None if resource is None else resource.canonical
