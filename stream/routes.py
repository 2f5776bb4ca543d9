"""What each route does."""

from __future__ import annotations

import asyncio
import re
from dataclasses import asdict
from importlib import resources
from pathlib import Path

from aiohttp import web

from stream.access import token_of
from stream.blur import to_blurred
from stream.controls import MAX_MESSAGE_BYTES, Controls, parse_changes, parse_json, parse_query
from stream.errors import RequestRefused
from stream.limits import read_body
from stream.models import Models
from stream.news import parse_version
from stream.pictures import MAX_PICTURE_BYTES, decode_picture, encode_jpeg
from stream.region import Segmenters
from stream.resources import SDP, add_candidates, read_offer, show_ice_servers, show_options
from stream.safety import SafetyThread
from stream.scheduler import EngineThread
from stream.sessions import Sessions
from stream.signaling import BOTH_WAYS
from stream.stats import Metrics
from stream.status import EngineState

ENGINE = web.AppKey("engine", EngineThread)
SAFETY = web.AppKey("safety", SafetyThread)
SEGMENTERS = web.AppKey("segmenters", Segmenters)
SESSIONS = web.AppKey("sessions", Sessions)
METRICS = web.AppKey("metrics", Metrics)
MODELS = web.AppKey("models", Models)

ALIAS = re.compile(r"[\w-]{1,64}", re.ASCII)

PAGE = Path(str(resources.files("webclient")))
PAGE_FILE = r"/{name:(?:[\w-]+/)*[\w-][\w.-]*\.(?:html|js|css|svg|png)}"


def add_routes(app: web.Application) -> None:
    """Add everything the server answers."""
    app.add_routes(
        [
            web.post("/sessions", open_session),
            web.options("/sessions", show_options),
            web.patch("/sessions/{id}", trickle),
            web.delete("/sessions/{id}", end_session),
            web.options("/sessions/{id}", show_options),
            web.get("/sessions/{id}/controls", show_controls),
            web.patch("/sessions/{id}/controls", change_controls),
            web.options("/sessions/{id}/controls", show_options),
            web.get("/api/ice-servers", show_ice_servers),
            web.options("/api/ice-servers", show_options),
            web.get("/api/styles", list_styles),
            web.get("/api/regions", list_regions),
            web.get("/api/models", list_models),
            web.post("/api/models/{name:.+}/load", load_model),
            web.post("/api/preview", preview),
            web.get("/healthz", show_health),
            web.get("/readyz", show_readiness),
            web.get("/metrics", show_metrics),
            web.get("/", show_page),
            web.get("/view/{id}", show_view),
            web.get(PAGE_FILE, show_file),
        ]
    )


async def open_session(request: web.Request) -> web.Response:
    """Answer an offer: 201 with the answer and where the session lives."""
    alias, query = read_alias(request)
    place = query.pop("place", None)
    controls = Controls().changed(parse_query(query))
    offer = await read_offer(request, BOTH_WAYS)
    session, answer = await request.app[SESSIONS].open_camera(
        offer, controls, alias=alias, token=token_of(request), place=place
    )
    return web.Response(
        status=201,
        text=answer,
        content_type=SDP,
        headers={"Location": f"/sessions/{session.id}"},
    )


def read_alias(request: web.Request) -> tuple[str | None, dict[str, str]]:
    """Return the name that a new session asks for, if any, and the rest of the query.

    Raises:
        RequestRefused: 422 for what cannot be a name.
    """
    query = dict(request.query)
    alias = query.pop("name", None)
    if alias is not None and not ALIAS.fullmatch(alias):
        raise RequestRefused(
            422, f"a name has 1 to 64 letters, digits, - and _ (got {alias[:80]!a})"
        )
    return alias, query


async def trickle(request: web.Request) -> web.Response:
    """Take trickled candidates: 204."""
    return await add_candidates(request, request.app[SESSIONS].camera(request.match_info["id"]))


async def end_session(request: web.Request) -> web.Response:
    """End a session: 200 when everything of it is freed."""
    sessions = request.app[SESSIONS]
    await sessions.end(sessions.camera(request.match_info["id"]))
    return web.Response()


async def show_controls(request: web.Request) -> web.Response:
    """Show a session's settings."""
    session = request.app[SESSIONS].camera(request.match_info["id"])
    return web.json_response(session.controls.to_json())


async def change_controls(request: web.Request) -> web.Response:
    """Change some of a session's settings, all or none, and show all."""
    session = request.app[SESSIONS].camera(request.match_info["id"])
    body = await read_body(request, MAX_MESSAGE_BYTES)
    controls = await session.change_and_tell(parse_changes(parse_json(body)))
    return web.json_response(controls.to_json())


async def list_styles(request: web.Request) -> web.Response:
    """List the looks that the model knows by name; none while it loads."""
    info = request.app[ENGINE].status.info
    return web.json_response({"styles": [asdict(style) for style in info.styles] if info else []})


async def list_regions(request: web.Request) -> web.Response:
    """List where in the picture the translation can be shown, and why somewhere it cannot."""
    return web.json_response({"regions": request.app[SEGMENTERS].to_json()})


async def list_models(request: web.Request) -> web.Response:
    """List the models and how it stands with them; with ``?after=`` a version, when it changes."""
    models = request.app[MODELS]
    after = parse_version(request.query.get("after"), "a list")
    if after is not None:
        await models.news(after)
    return web.json_response(models.to_json(), headers={"Cache-Control": "no-store"})


async def load_model(request: web.Request) -> web.Response:
    """Begin to load another model for everybody: 202, or 200 if it runs already."""
    models = request.app[MODELS]
    is_begun = models.load(request.match_info["name"])
    return web.json_response(models.to_json(), status=202 if is_begun else 200)


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
        picture, controls, lambda: request.transport is not None
    )
    safety = request.app.get(SAFETY)
    if safety is not None and await safety.is_unfit(translated):
        translated = await asyncio.to_thread(to_blurred, translated)
    jpeg = await asyncio.to_thread(encode_jpeg, translated)
    return web.Response(body=jpeg, content_type="image/jpeg", headers={"Cache-Control": "no-store"})


async def show_health(_: web.Request) -> web.Response:
    """Tell that the server runs."""
    return web.json_response({"status": "ok"})


async def show_readiness(request: web.Request) -> web.Response:
    """Tell whether pictures are translated: 200, or 503 with the reason."""
    status = request.app[ENGINE].status
    if request.app[SESSIONS].is_draining:
        detail = "the server is stopping"
        return web.json_response({"status": "draining", "detail": detail}, status=503)
    if status.info is not None and status.is_ready:
        return web.json_response({"status": "ready", "engine": status.info.to_json()})
    state = EngineState.LOADING if status.state is EngineState.LOADING else EngineState.FAILED
    detail = request.app[MODELS].describe_loading() or status.detail
    return web.json_response({"status": state.value, "detail": detail}, status=503)


async def show_metrics(request: web.Request) -> web.Response:
    """Show everything that is counted, for Prometheus."""
    request.app[SESSIONS].count()
    return web.Response(
        body=request.app[METRICS].exposition(),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )


async def show_page(_: web.Request) -> web.FileResponse:
    """Send the page."""
    return _send_file("index.html")


async def show_view(_: web.Request) -> web.FileResponse:
    """Send the bare page that plays one session."""
    return _send_file("view.html")


async def show_file(request: web.Request) -> web.FileResponse:
    """Send one file of the page."""
    return _send_file(request.match_info["name"])


def _send_file(name: str) -> web.FileResponse:
    path = PAGE / name
    # No file of the page has a name that long, and the file system may not take it.
    if len(name) > 100 or not path.is_file():
        raise RequestRefused(404, f"there is no file {name!a}")
    return web.FileResponse(path)
