"""What WHIP and WHEP have in common over HTTP (RFC 9725, draft-ietf-wish-whep).

A session is a resource of its own: made by POST at an endpoint, PATCHed with candidates,
DELETEd. ICE is never restarted, so there are no entity tags.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from aiohttp import web
from multidict import CIMultiDict

from stream import rtp
from stream.config import ServerConfig
from stream.errors import RequestRefused
from stream.ice_servers import IceServer, lend, to_browser
from stream.limits import read_body
from stream.session import Session
from stream.signaling import MAX_OFFER_BYTES, Way, check_offer, parse_fragment, require_mux

CONFIG = web.AppKey("config", ServerConfig)
SDP = "application/sdp"


async def read_offer(request: web.Request, way: Way) -> str:
    """Read and check the offer of a POST.

    Raises:
        OfferRefused: it cannot be answered.
        RequestRefused: it is too large.
    """
    body = await read_body(request, MAX_OFFER_BYTES)
    content_type = request.headers.get("Content-Type", "")
    return check_offer(
        body,
        content_type,
        way,
        is_cleaned=rtp.cleans_offers(),
        is_public=request.app[CONFIG].is_public,
    )


def created(location: str, answer: str, ice_servers: Sequence[IceServer] = ()) -> web.Response:
    """Return 201 with an answer, where its session lives, and the ICE servers to use."""
    headers = CIMultiDict({"Location": location})
    for server in ice_servers:
        headers.add("Link", _to_link(server))
    # As bytes, since aiohttp would add a charset, which the type does not have.
    body = require_mux(answer).encode()
    return web.Response(status=201, body=body, content_type=SDP, headers=headers)


async def add_candidates(request: web.Request, session: Session) -> web.Response:
    """Take the candidates of a PATCH: 204, without a body or an entity tag.

    Raises:
        RequestRefused: 412 for an entity tag, which nobody was given.
        OfferRefused: 422 for a restart of ICE.
    """
    # RFC 9110 has the star bare, the examples of RFC 9725 have it quoted.
    if request.headers.get("If-Match", "*").strip() not in ("*", '"*"'):
        raise RequestRefused(412, "sessions have no entity tag here; leave If-Match out")
    body = await read_body(request, MAX_OFFER_BYTES)
    content_type = request.headers.get("Content-Type", "")
    fragment = parse_fragment(
        body,
        content_type,
        is_cleaned=rtp.cleans_offers(),
        is_public=request.app[CONFIG].is_public,
    )
    await session.add_candidates(fragment)
    return web.Response(status=204)


def lend_ice_servers(request: web.Request, name: str) -> tuple[IceServer, ...]:
    """Return the servers that one session is told of, with its own credentials."""
    config = request.app[CONFIG]
    return lend(config.ice_servers, config.turn_secret, name)


async def show_ice_servers(request: web.Request) -> web.Response:
    """Show what a page's connection takes as its ``iceServers``, for one session each time."""
    servers = to_browser(lend_ice_servers(request, secrets.token_hex(4)))
    return web.json_response({"iceServers": servers}, headers={"Cache-Control": "no-store"})


async def show_options(_: web.Request) -> web.Response:
    """Tell what a POST takes; what browsers ask beside that is answered for all routes."""
    return web.Response(headers={"Accept-Post": SDP})


def _to_link(server: IceServer) -> str:
    """Return one ``Link`` (RFC 9725, section 4.6)."""
    link = f'<{server.url}>; rel="ice-server"'
    if server.username:
        link += (
            f"; username={_quoted(server.username)}; credential={_quoted(server.credential)}"
            '; credential-type="password"'
        )
    return link


def _quoted(text: str) -> str:
    """Return a quoted string (RFC 9110, section 5.6.4)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
