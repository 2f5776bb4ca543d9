"""The routes of the waiting list: a place is a resource, made, asked for and given up."""

from __future__ import annotations

from aiohttp import web

from stream.news import parse_version
from stream.resources import show_options
from stream.routes import SESSIONS

_FRESH = {"Cache-Control": "no-store"}


def add_routes(app: web.Application) -> None:
    """Add the list and its places."""
    app.add_routes(
        [
            web.post("/waiting", join),
            web.options("/waiting", show_options),
            web.get("/waiting/{id}", show_place),
            web.delete("/waiting/{id}", leave),
            web.options("/waiting/{id}", show_options),
        ]
    )


async def join(request: web.Request) -> web.Response:
    """Take the last place: 201, with how it stands and where it lives."""
    waiting = request.app[SESSIONS].waiting
    place = waiting.join()
    return web.json_response(
        waiting.to_json(place), status=201, headers={"Location": f"/waiting/{place.id}", **_FRESH}
    )


async def show_place(request: web.Request) -> web.Response:
    """Tell how a place stands; with ``?after=`` a version, when there is news, or after 5 s."""
    after = parse_version(request.query.get("after"), "a place")
    waiting = request.app[SESSIONS].waiting
    news = await waiting.news(request.match_info["id"], after)
    return web.json_response(news, headers=_FRESH)


async def leave(request: web.Request) -> web.Response:
    """Give a place up."""
    request.app[SESSIONS].waiting.leave(request.match_info["id"])
    return web.Response()
