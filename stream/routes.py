"""What each route does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path

from aiohttp import web

from stream.config import ModelEntry
from stream.controls import MAX_MESSAGE_BYTES, Controls, parse_changes, parse_json, parse_query
from stream.errors import RequestRefused
from stream.limits import read_body
from stream.pictures import MAX_PICTURE_BYTES, decode_picture, encode_jpeg
from stream.scheduler import EngineThread
from stream.sessions import Sessions
from stream.signaling import MAX_OFFER_BYTES, check_offer, parse_fragment
from stream.stats import Metrics
from stream.status import EngineState

ENGINE = web.AppKey("engine", EngineThread)
SESSIONS = web.AppKey("sessions", Sessions)
METRICS = web.AppKey("metrics", Metrics)
MODELS = web.AppKey("models", Sequence[ModelEntry])

PAGE = Path(str(resources.files("webclient")))
PAGE_FILE = r"/{name:(?:[\w-]+/)*[\w-][\w.-]*\.(?:html|js|css|svg|png)}"


def add_routes(app: web.Application) -> None:
    """Add everything the server answers."""
    app.add_routes(
        [
            web.post("/sessions", open_session),
            web.patch("/sessions/{id}", add_candidates),
            web.delete("/sessions/{id}", end_session),
            web.get("/sessions/{id}/controls", show_controls),
            web.patch("/sessions/{id}/controls", change_controls),
            web.get("/api/styles", list_styles),
            web.get("/api/models", list_models),
            web.post("/api/preview", preview),
            web.get("/healthz", show_health),
            web.get("/readyz", show_readiness),
            web.get("/metrics", show_metrics),
            web.get("/", show_page),
            web.get(PAGE_FILE, show_file),
        ]
    )


async def open_session(request: web.Request) -> web.Response:
    """Answer an offer: 201 with the answer and where the session lives."""
    body = await read_body(request, MAX_OFFER_BYTES)
    offer = check_offer(body, request.headers.get("Content-Type", ""))
    controls = Controls().changed(parse_query(request.query))
    session, answer = await request.app[SESSIONS].open(offer, controls)
    return web.Response(
        status=201,
        text=answer,
        content_type="application/sdp",
        headers={"Location": f"/sessions/{session.id}"},
    )


async def add_candidates(request: web.Request) -> web.Response:
    """Take trickled candidates: 204."""
    session = request.app[SESSIONS].get(request.match_info["id"])
    body = await read_body(request, MAX_OFFER_BYTES)
    await session.add_candidates(parse_fragment(body, request.headers.get("Content-Type", "")))
    return web.Response(status=204)


async def end_session(request: web.Request) -> web.Response:
    """End a session: 200 when everything of it is freed."""
    await request.app[SESSIONS].end(request.match_info["id"])
    return web.Response()


async def show_controls(request: web.Request) -> web.Response:
    """Show a session's settings."""
    session = request.app[SESSIONS].get(request.match_info["id"])
    return web.json_response(session.controls.to_json())


async def change_controls(request: web.Request) -> web.Response:
    """Change some of a session's settings, all or none, and show all."""
    session = request.app[SESSIONS].get(request.match_info["id"])
    body = await read_body(request, MAX_MESSAGE_BYTES)
    controls = await session.change_and_tell(parse_changes(parse_json(body)))
    return web.json_response(controls.to_json())


async def list_styles(request: web.Request) -> web.Response:
    """List the looks that the model knows by name; none while it loads."""
    info = request.app[ENGINE].status.info
    return web.json_response({"styles": [asdict(style) for style in info.styles] if info else []})


async def list_models(request: web.Request) -> web.Response:
    """List the models and whether they run here."""
    return web.json_response({"models": [asdict(model) for model in request.app[MODELS]]})


async def preview(request: web.Request) -> web.Response:
    """Translate one picture, when no live frame waits."""
    controls = Controls().changed(parse_query(request.query))
    if request.content_type not in ("image/jpeg", "image/png"):
        raise RequestRefused(
            415, f"the body must be image/jpeg or image/png (got {request.content_type!r})"
        )
    body = await read_body(request, MAX_PICTURE_BYTES)
    picture = await asyncio.to_thread(decode_picture, body)
    translated = await request.app[ENGINE].translate_picture(
        picture, controls.prompt, controls.settings
    )
    jpeg = await asyncio.to_thread(encode_jpeg, translated)
    return web.Response(body=jpeg, content_type="image/jpeg", headers={"Cache-Control": "no-store"})


async def show_health(_: web.Request) -> web.Response:
    """Tell that the server runs."""
    return web.json_response({"status": "ok"})


async def show_readiness(request: web.Request) -> web.Response:
    """Tell whether pictures are translated: 200, or 503 with the reason."""
    status = request.app[ENGINE].status
    if status.info is not None and status.is_ready:
        return web.json_response({"status": "ready", "engine": status.info.to_json()})
    state = EngineState.LOADING if status.state is EngineState.LOADING else EngineState.FAILED
    return web.json_response({"status": state.value, "detail": status.detail}, status=503)


async def show_metrics(request: web.Request) -> web.Response:
    """Show everything that is counted, for Prometheus."""
    return web.Response(
        body=request.app[METRICS].exposition(),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )


async def show_page(_: web.Request) -> web.FileResponse:
    """Send the page."""
    return _send_file("index.html")


async def show_file(request: web.Request) -> web.FileResponse:
    """Send one file of the page."""
    return _send_file(request.match_info["name"])


def _send_file(name: str) -> web.FileResponse:
    path = PAGE / name
    if not path.is_file():
        raise RequestRefused(404, f"there is no file {name!a}")
    return web.FileResponse(path)
