"""What HTTP offers of presets and playlists."""

from __future__ import annotations

from aiohttp import web

from stream.access import token_of
from stream.controls import MAX_MESSAGE_BYTES, parse_json
from stream.errors import RequestRefused
from stream.limits import read_body
from stream.playlists import Players
from stream.preset_store import PresetStore
from stream.presets import parse_playlist, parse_preset
from stream.resources import CONFIG, show_options

PRESETS = web.AppKey("presets", PresetStore)
PLAYERS = web.AppKey("players", Players)


def add_routes(app: web.Application) -> None:
    """Add the list, and an address for each entry."""
    app.add_routes(
        [
            web.get("/api/presets", show_book),
            web.put("/api/presets/{name}", save_preset),
            web.delete("/api/presets/{name}", delete_preset),
            web.options("/api/presets/{name}", show_options),
            web.put("/api/playlists/{name}", save_playlist),
            web.delete("/api/playlists/{name}", delete_playlist),
            web.options("/api/playlists/{name}", show_options),
        ]
    )


async def show_book(request: web.Request) -> web.Response:
    """List all presets and playlists, what is wrong with their file, and who may change it."""
    return await _answer(request)


async def save_preset(request: web.Request) -> web.Response:
    """Save a look: 201 for a new one, 200 for one that was changed."""
    _check_may_save(request)
    values = parse_json(await read_body(request, MAX_MESSAGE_BYTES))
    preset = parse_preset(request.match_info["name"], values)
    is_new = await request.app[PRESETS].save(preset)
    return await _answer(request, 201 if is_new else 200)


async def delete_preset(request: web.Request) -> web.Response:
    """Delete a look: 200 with what is left."""
    _check_may_save(request)
    await request.app[PRESETS].delete("presets", request.match_info["name"])
    return await _answer(request)


async def save_playlist(request: web.Request) -> web.Response:
    """Save a playlist: 201 for a new one, 200 for one that was changed."""
    _check_may_save(request)
    values = parse_json(await read_body(request, MAX_MESSAGE_BYTES))
    playlist = parse_playlist(request.match_info["name"], values)
    is_new = await request.app[PRESETS].save(playlist)
    return await _answer(request, 201 if is_new else 200)


async def delete_playlist(request: web.Request) -> web.Response:
    """Delete a playlist: 200 with what is left. One that runs goes on."""
    _check_may_save(request)
    await request.app[PRESETS].delete("playlists", request.match_info["name"])
    return await _answer(request)


def _why_not(request: web.Request) -> str:
    """Say why this request may not change presets, which are everybody's; empty: it may."""
    if not request.app[PRESETS].has_file:
        return "this server keeps no presets"
    token = token_of(request)
    if request.app[CONFIG].is_guarded or (token is not None and token.is_operator):
        return ""
    return "presets are everybody's: here only the operator saves them, by the --token"


def _check_may_save(request: web.Request) -> None:
    if refusal := _why_not(request):
        raise RequestRefused(403, refusal)


async def _answer(request: web.Request, status: int = 200) -> web.Response:
    store = request.app[PRESETS]
    book = await store.read()
    return web.json_response(
        {
            "presets": [preset.to_json() for preset in book.presets.values()],
            "playlists": [playlist.to_json() for playlist in book.playlists.values()],
            "problems": list(book.problems),
            "may_save": not _why_not(request),
            "refusal": _why_not(request),
        },
        status=status,
        headers={"Cache-Control": "no-store"},
    )
