"""WHIP: a camera, a program such as OBS or an encoder sends its video in (RFC 9725).

A session made here sends nothing back; who watches it comes by WHEP.
"""

from __future__ import annotations

from aiohttp import web

from stream.access import token_of
from stream.controls import Controls, parse_query
from stream.errors import ServerFull
from stream.resources import (
    CONFIG,
    add_candidates,
    created,
    lend_ice_servers,
    read_offer,
    show_options,
)
from stream.routes import SESSIONS, change_controls, read_alias, show_controls
from stream.signaling import INGEST


def add_routes(app: web.Application) -> None:
    """Add the endpoint and its sessions."""
    app.add_routes(
        [
            web.post("/whip", publish),
            web.get("/whip", show_endpoint),
            web.options("/whip", show_options),
            web.get("/whip/{id}", show_session),
            web.patch("/whip/{id}", trickle),
            web.delete("/whip/{id}", end),
            web.options("/whip/{id}", show_options),
            web.get("/whip/{id}/controls", show_controls),
            web.patch("/whip/{id}/controls", change_controls),
            web.options("/whip/{id}/controls", show_options),
        ]
    )


async def publish(request: web.Request) -> web.Response:
    """Answer an offer: 201, or 307 to another server when this one is full."""
    app = request.app
    alias, query = read_alias(request)
    controls = Controls().changed(parse_query(query))
    offer = await read_offer(request, INGEST)
    try:
        session, answer = await app[SESSIONS].open_camera(
            offer, controls, sends_back=False, alias=alias, token=token_of(request)
        )
    except ServerFull:
        if not app[CONFIG].redirect_to:
            raise
        # 301 and 302 would let a client repeat the request as a GET.
        return web.Response(
            status=307, headers={"Location": app[CONFIG].redirect_to + request.path_qs}
        )
    return created(f"/whip/{session.id}", answer, lend_ice_servers(request, session.name))


async def show_endpoint(_: web.Request) -> web.Response:
    """Tell that the endpoint is there: 204."""
    return web.Response(status=204)


async def show_session(request: web.Request) -> web.Response:
    """Tell that a session is there: 204."""
    request.app[SESSIONS].camera(request.match_info["id"])
    return web.Response(status=204)


async def trickle(request: web.Request) -> web.Response:
    """Take further candidates: 204."""
    return await add_candidates(request, request.app[SESSIONS].camera(request.match_info["id"]))


async def end(request: web.Request) -> web.Response:
    """End a session: 200 when everything of it is freed."""
    sessions = request.app[SESSIONS]
    await sessions.end(sessions.camera(request.match_info["id"]))
    return web.Response()
