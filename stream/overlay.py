"""What a view may write over its picture: the style, how many watch, that the server will stop.

``GET /view/{id}/overlay`` answers at once; with ``?after=`` the version of an answer, when it
is no longer true, after 20 s at the latest.
"""

from __future__ import annotations

import json
import re
import zlib

from aiohttp import web

from stream.camera_session import CameraSession
from stream.errors import RequestRefused
from stream.news import News
from stream.resources import show_options
from stream.sessions import Sessions

LONGEST_WAIT_S = 20.0
MOST_WAITING = 128
_VERSION = re.compile(r"[0-9a-f]{8}")


class Overlays:
    """Has whoever asks wait for news; used on the event loop."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._news = News("sessions", LONGEST_WAIT_S, MOST_WAITING)
        sessions.on_change.append(self._news.tell)

    def read(self, name: str) -> dict[str, object]:
        """Return what can be written over a session's picture.

        Raises:
            SessionUnknown: there is none of this name.
        """
        return describe(self._sessions.camera(name), self._sessions.ending)

    async def wait(self, name: str, after: str) -> dict[str, object]:
        """Return it when it is another than the version ``after``, after 20 s at the latest.

        Raises:
            SessionUnknown: there is none of this name, or it has ended meanwhile.
            ServerFull: too many wait already.
        """
        await self._news.until(lambda: self.read(name)["version"] != after)
        return self.read(name)

    def close(self) -> None:
        """Send everybody away who waits. Calling it again does nothing."""
        self._news.close()


OVERLAYS = web.AppKey("overlays", Overlays)


def add_routes(app: web.Application) -> None:
    """Add one address for each session."""
    app.add_routes(
        [
            web.get("/view/{id}/overlay", show_overlay),
            web.options("/view/{id}/overlay", show_options),
        ]
    )


async def show_overlay(request: web.Request) -> web.Response:
    """Tell what to write; with ``?after=`` a version, when there is something else to write."""
    name, after = request.match_info["id"], request.query.get("after")
    overlays = request.app[OVERLAYS]
    if after is None:
        told = overlays.read(name)
    elif _VERSION.fullmatch(after):
        told = await overlays.wait(name, after)
    else:
        raise RequestRefused(422, f"after must be the version of an answer (got {after[:40]!a})")
    return web.json_response(told, headers={"Cache-Control": "no-store"})


def describe(session: CameraSession, notice: str) -> dict[str, object]:
    """Return a session's style, empty while the camera is shown, how many watch, and a notice."""
    controls = session.controls
    words = "" if controls.bypass else controls.prompt
    told = {"style": words, "viewers": len(session.audience), "notice": notice}
    return {**told, "version": f"{zlib.crc32(json.dumps(told).encode()):08x}"}
