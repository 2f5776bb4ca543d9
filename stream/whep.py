"""WHEP: a player watches what a session is translated to (draft-ietf-wish-whep).

The session may be of either kind: one that came by WHIP, or one of the page.
"""

from __future__ import annotations

from aiohttp import web

from stream.access import token_of
from stream.errors import RequestRefused
from stream.resources import (
    SDP,
    add_candidates,
    created,
    lend_ice_servers,
    read_offer,
    show_options,
)
from stream.routes import SESSIONS
from stream.signaling import EGRESS
from stream.viewer_session import ViewerSession


def add_routes(app: web.Application) -> None:
    """Add one endpoint for each session, and its viewers."""
    app.add_routes(
        [
            web.post("/whep/{id}", watch),
            web.get("/whep/{id}", show_endpoint),
            web.options("/whep/{id}", show_options),
            web.get("/whep/{id}/{viewer}", show_viewer),
            web.patch("/whep/{id}/{viewer}", trickle),
            web.delete("/whep/{id}/{viewer}", leave),
            web.options("/whep/{id}/{viewer}", show_options),
        ]
    )


async def watch(request: web.Request) -> web.Response:
    """Answer an offer: 201 with the answer and where the viewer lives.

    With ``?camera=1`` it is shown the camera's own pictures.
    """
    app = request.app
    camera = request.query.get("camera", "0")
    if camera not in ("0", "1"):
        raise RequestRefused(422, f"camera must be 0 or 1 (got {camera[:40]!a})")
    source = app[SESSIONS].camera(request.match_info["id"])
    offer = await read_offer(request, EGRESS)
    viewer, answer = await app[SESSIONS].open_viewer(
        source, offer, token_of(request), untranslated=camera == "1"
    )
    return created(f"/whep/{source.id}/{viewer.id}", answer, lend_ice_servers(request, viewer.name))


async def show_endpoint(request: web.Request) -> web.Response:
    """Tell that there is something to watch: 200 with the type that a POST takes."""
    request.app[SESSIONS].camera(request.match_info["id"])
    return web.Response(content_type=SDP)


async def show_viewer(request: web.Request) -> web.Response:
    """Tell that a viewer is there: 204."""
    _find(request)
    return web.Response(status=204)


async def trickle(request: web.Request) -> web.Response:
    """Take further candidates: 204."""
    return await add_candidates(request, _find(request))


async def leave(request: web.Request) -> web.Response:
    """End a viewer's session: 200 when everything of it is freed."""
    await request.app[SESSIONS].end(_find(request))
    return web.Response()


def _find(request: web.Request) -> ViewerSession:
    return request.app[SESSIONS].viewer(request.match_info["viewer"])
