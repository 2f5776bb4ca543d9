"""What a button does to a session: a stream deck's, a hotkey program's, a script's.

``POST /sessions/{id}/actions/{name}``, for every kind of session, by its id or its name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from stream.camera_session import CameraSession
from stream.errors import EngineNotReady, RequestRefused
from stream.preset_routes import PLAYERS, PRESETS
from stream.record_routes import to_file
from stream.resources import show_options
from stream.routes import ENGINE, SESSIONS

Action = Callable[[web.Request, CameraSession], Awaitable[dict[str, Any] | web.Response]]
"""Does something to a session; returns what is answered. It checks its own query."""


def add_routes(app: web.Application) -> None:
    """Add one address for each action of each session."""
    app.add_routes(
        [
            web.post("/sessions/{id}/actions/{name}", act),
            web.options("/sessions/{id}/actions/{name}", show_options),
        ]
    )


async def act(request: web.Request) -> web.Response:
    """Do one action: 200 with what came of it."""
    session = request.app[SESSIONS].camera(request.match_info["id"])
    name = request.match_info["name"]
    action = ACTIONS.get(name)
    if action is None:
        known = ", ".join(ACTIONS)
        raise RequestRefused(404, f"no action is named {name[:40]!a}; there are {known}")
    answer = await action(request, session)
    return answer if isinstance(answer, web.Response) else web.json_response(answer)


async def show_next_style(request: web.Request, session: CameraSession) -> dict[str, Any]:
    """Go to the model's next style, round and round."""
    return await _step_style(request, session, 1)


async def show_previous_style(request: web.Request, session: CameraSession) -> dict[str, Any]:
    """Go to the model's style before, round and round."""
    return await _step_style(request, session, -1)


async def switch_bypass(request: web.Request, session: CameraSession) -> dict[str, Any]:
    """Show the camera, or the translation again; ``on`` says which. Ends a freeze."""
    is_on = read_switch(request, default=not session.controls.bypass)
    await session.change_and_tell({"bypass": is_on, "freeze": False})
    return describe(session)


async def switch_freeze(request: web.Request, session: CameraSession) -> dict[str, Any]:
    """Hold the last translated picture, or let it go; ``on`` says which."""
    is_on = read_switch(request, default=not session.controls.freeze)
    if is_on and session.controls.bypass:
        raise RequestRefused(
            409, "the camera is shown, so there is no translated picture to hold; end bypass first"
        )
    await session.change_and_tell({"freeze": is_on})
    return describe(session)


async def show_camera(request: web.Request, session: CameraSession) -> dict[str, Any]:
    """Show the camera, whatever was shown; a second time it changes nothing."""
    refuse_queries(request)
    await session.change_and_tell({"bypass": True, "freeze": False})
    return describe(session)


async def show_preset(request: web.Request, session: CameraSession) -> dict[str, Any]:
    """Set what the preset ``name`` sets."""
    book = await request.app[PRESETS].read()
    await session.change_and_tell(book.preset(read_name(request)).look)
    return describe(session)


async def start_playlist(request: web.Request, session: CameraSession) -> dict[str, Any]:
    """Play the playlist ``name`` from its beginning, in place of one that runs."""
    book = await request.app[PRESETS].read()
    await request.app[PLAYERS].start(session, book.playlist(read_name(request)))
    return describe(session)


async def stop_playlist(request: web.Request, session: CameraSession) -> dict[str, Any]:
    """Stop the playlist that runs, if one does; the look stays."""
    refuse_queries(request)
    await request.app[PLAYERS].stop(session)
    return describe(session)


async def make_clip(request: web.Request, session: CameraSession) -> web.Response:
    """Answer with the last 30 s, as an MP4."""
    refuse_queries(request)
    return to_file(await session.recorder.clip(), session, "video/mp4", ".mp4")


ACTIONS: dict[str, Action] = {
    "next-style": show_next_style,
    "previous-style": show_previous_style,
    "bypass": switch_bypass,
    "freeze": switch_freeze,
    "camera": show_camera,
    "clip": make_clip,
    "preset": show_preset,
    "start-playlist": start_playlist,
    "stop-playlist": stop_playlist,
}


def describe(session: CameraSession) -> dict[str, Any]:
    """Return what a button may show: what is seen, what runs, and all settings."""
    return {
        "state": session.picture_state,
        "playlist": session.playlist,
        "controls": session.controls.to_json(),
    }


def read_name(request: web.Request) -> str:
    """Return what ``?name=`` says.

    Raises:
        RequestRefused: 422 without it, or with anything else.
    """
    refuse_queries(request, "name")
    name = request.query.get("name", "")
    if not name:
        raise RequestRefused(422, "this action needs a name, such as ?name=evening")
    return name


def read_switch(request: web.Request, default: bool) -> bool:
    """Return what ``?on=1`` or ``?on=0`` says; without it, ``default``.

    Raises:
        RequestRefused: 422 for anything else.
    """
    refuse_queries(request, "on")
    text = request.query.get("on")
    if text not in (None, "0", "1"):
        raise RequestRefused(422, f"on must be 0 or 1 (got {text[:40]!a})")
    return default if text is None else text == "1"


def refuse_queries(request: web.Request, *known: str) -> None:
    """Refuse a query that has anything but ``known``.

    Raises:
        RequestRefused: 422.
    """
    for name in request.query:
        if name not in known:
            what = f"only {' and '.join(known)}" if known else "nothing"
            raise RequestRefused(422, f"this action takes {what} (got {name[:40]!a})")


async def _step_style(request: web.Request, session: CameraSession, offset: int) -> dict[str, Any]:
    refuse_queries(request)
    status = request.app[ENGINE].status
    if status.info is None:
        raise EngineNotReady(status.detail)
    styles = status.info.styles
    if not styles:
        raise RequestRefused(409, f"{status.info.model} takes any words and has no list of styles")
    words = session.controls.prompt.strip().lower()
    names = [(style.name, *style.synonyms) for style in styles]
    # A blend or free words lie before the first style and after the last.
    before = -1 if offset > 0 else len(styles)
    at = next((number for number, each in enumerate(names) if words in each), before)
    style = styles[(at + offset) % len(styles)]
    await session.change_and_tell({"prompt": style.name})
    return describe(session)
