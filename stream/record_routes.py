"""The routes that keep something of a session: recording and snapshot."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from aiohttp import web

from stream.camera_session import CameraSession
from stream.controls import parse_json
from stream.errors import RequestRefused
from stream.limits import read_body
from stream.pictures import encode_jpeg
from stream.resources import CONFIG, show_options
from stream.routes import SESSIONS

MAX_BODY_BYTES = 1024


def add_routes(app: web.Application) -> None:
    """Add them."""
    app.add_routes(
        [
            web.get("/api/keeping", show_keeping),
            web.get("/sessions/{id}/recording", show_recording),
            web.post("/sessions/{id}/recording", start_recording),
            web.delete("/sessions/{id}/recording", stop_recording),
            web.options("/sessions/{id}/recording", show_options),
            web.get("/sessions/{id}/snapshot", take_snapshot),
        ]
    )


async def show_keeping(request: web.Request) -> web.Response:
    """Tell what this server may keep, for the page to say."""
    keeping = request.app[CONFIG].keeping
    return web.json_response(
        {"may_record": keeping.record_dir is not None, "may_clip": keeping.clips},
        headers={"Cache-Control": "no-store"},
    )


async def show_recording(request: web.Request) -> web.Response:
    """Show what is being recorded of a session."""
    return web.json_response(_session(request).recorder.to_json())


async def start_recording(request: web.Request) -> web.Response:
    """Begin to record a session, and with ``{"camera": true}`` its camera too: 201."""
    body = await read_body(request, MAX_BODY_BYTES)
    with_camera = _read_wish(parse_json(body)) if body else False
    recorder = _session(request).recorder
    return web.json_response(await recorder.start(with_camera=with_camera), status=201)


async def stop_recording(request: web.Request) -> web.Response:
    """End a recording: 200 when its files are finished."""
    return web.json_response(await _session(request).recorder.stop())


async def take_snapshot(request: web.Request) -> web.Response:
    """Answer with the picture that a session showed last."""
    session = _session(request)
    picture = await asyncio.to_thread(session.picture)
    if picture is None:
        raise RequestRefused(409, "the session has shown no picture yet")
    comment = session.describe()["comment"]
    jpeg = await asyncio.to_thread(encode_jpeg, picture, comment)
    return to_file(jpeg, session, "image/jpeg", ".jpg")


def _session(request: web.Request) -> CameraSession:
    return request.app[SESSIONS].camera(request.match_info["id"])


def _read_wish(value: Any) -> bool:
    if not isinstance(value, dict) or not value.keys() <= {"camera"}:
        raise RequestRefused(422, 'a recording is asked for by {"camera": true}, or by no body')
    camera = value.get("camera", False)
    if not isinstance(camera, bool):
        raise RequestRefused(422, f"camera must be true or false (got {ascii(camera)[:60]})")
    return camera


def to_file(body: bytes, session: CameraSession, content_type: str, ending: str) -> web.Response:
    """Answer with a file that is named after what the session shows."""
    tags = session.describe()
    prompt = re.sub(r"[^\w-]+", "_", tags["title"], flags=re.ASCII)[:40] or "picture"
    name = f"{prompt}-{tags['creation_time'][:19].replace(':', '-')}{ending}"
    return web.Response(
        body=body,
        content_type=content_type,
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="{name}"',
        },
    )
