"""What may be written over a picture, and when it is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engines import ColourEngine
from peers import DEADLINE_S, Player, Serving, flat, serving
from test_stream_actions import act
from test_stream_session import ORANGE, kill

from stream import overlay
from stream.config import ServerConfig
from stream.tokens import Token

pytestmark = pytest.mark.usefixtures("corrected")


class Reader:
    """Follows one session's overlay, as a view does."""

    def __init__(self, server: Serving, name: str, **headers: str) -> None:
        self.server = server
        self.url = f"{server.base}/view/{name}/overlay"
        self.headers = headers
        self.version = ""

    async def ask(self, query: str = "") -> tuple[int, dict[str, Any]]:
        async with self.server.http.get(self.url + query, headers=self.headers) as response:
            return response.status, await response.json()

    async def next(self) -> tuple[str, int]:
        """Return the style and the count, when they are others than at the last call."""
        async with asyncio.timeout(DEADLINE_S):
            status, told = await self.ask(f"?after={self.version}" if self.version else "")
        assert status == 200
        self.version = told["version"]
        return told["style"], told["viewers"]


async def until_waiting(server: Serving) -> None:
    """Let a request arrive that is answered later."""
    async with asyncio.timeout(DEADLINE_S):
        while not server.app[overlay.OVERLAYS]._news._waiting:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)


async def test_count_is_right_when_viewers_come_and_go() -> None:
    """Each answer comes with a change: connected, left, killed; who never connects is nobody."""
    config = ServerConfig(silence_timeout_s=1.0, connect_timeout_s=1.0)
    async with serving(ColourEngine, config) as server:
        await server.publish(flat(ORANGE), "?name=show&prompt=invert")
        await server.publish(flat(ORANGE), "?name=other&prompt=swap")
        reader = Reader(server, "show")
        assert await reader.next() == ("invert", 0)
        first = await server.play("show")
        assert await reader.next() == ("invert", 1)
        # One that only asks, and one of another session.
        absent = Player(server.http, server.base)
        absent.pc.addTransceiver("video", "recvonly")
        await absent.post("/whep/show", answer=False)
        server.peers.append(absent)
        await (await server.play("other")).until_frames(1)
        second = await server.play("show")
        assert await reader.next() == ("invert", 2)
        async with server.http.delete(server.base + second.location) as response:
            assert response.status == 200
        assert await reader.next() == ("invert", 1)
        kill(first)
        assert await reader.next() == ("invert", 0)
        assert len(server.sessions.camera("show").audience) == 0
        assert await Reader(server, "other").next() == ("swap", 1)


async def test_style_is_told_when_it_changes() -> None:
    """The camera has no style; a change of something else wakes nobody for nothing."""
    async with serving(ColourEngine) as server:
        publisher = await server.publish(flat(ORANGE), "?name=show&prompt=invert")
        reader = Reader(server, "show")
        assert await reader.next() == ("invert", 0)
        waiting = asyncio.create_task(reader.next())
        await until_waiting(server)
        session = server.sessions.camera("show")
        await session.change({"strength": 0.5})
        await act(server, "show", "next-style")
        assert await waiting == ("swap", 0)
        await act(server, "show", "camera")
        assert await reader.next() == ("", 0)
        waiting = asyncio.create_task(reader.ask(f"?after={reader.version}"))
        async with server.http.delete(server.base + publisher.location) as response:
            assert response.status == 200
        assert (await waiting)[0] == 404
        assert (await reader.ask())[0] == 404


async def test_viewers_are_told_that_the_server_will_stop() -> None:
    """Whoever waits for news of any session hears it at once, word for word."""
    async with serving(ColourEngine) as server:
        await server.publish(flat(ORANGE), "?name=show&prompt=invert")
        reader = Reader(server, "show")
        assert (await reader.ask())[1]["notice"] == ""
        assert await reader.next() == ("invert", 0)
        waiting = asyncio.create_task(reader.ask(f"?after={reader.version}"))
        await until_waiting(server)
        server.sessions.drain("The server is about to stop.", 5)
        assert (await waiting)[1]["notice"] == "The server is about to stop."


async def test_waiting_has_an_end_and_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same is answered again after a time; too many are refused; stopping sends all away."""
    async with serving(ColourEngine) as server:
        news = server.app[overlay.OVERLAYS]._news
        monkeypatch.setattr(news, "_longest_s", 0.2)
        await server.publish(flat(ORANGE), "?name=show&prompt=invert")
        reader = Reader(server, "show")
        assert await reader.next() == await reader.next() == ("invert", 0)
        assert (await reader.ask("?after=now"))[0] == 422
        monkeypatch.setattr(news, "_most", 0)
        assert (await reader.ask(f"?after={reader.version}"))[0] == 503
        monkeypatch.undo()
        waiting = asyncio.create_task(reader.ask(f"?after={reader.version}"))
        await until_waiting(server)
        async with asyncio.timeout(overlay.LONGEST_WAIT_S / 2):
            await server.app.shutdown()
            assert (await waiting)[0] == 200


async def test_who_watches_may_read_it() -> None:
    """With tokens any of them will do, as for watching; without one it is refused."""
    tokens = (Token("anna", "s3cret-of-anna-alone"), Token("bert", "s3cret-of-bert-alone"))
    async with serving(ColourEngine, ServerConfig(tokens=tokens)) as server:
        server.http.headers["Authorization"] = "Bearer s3cret-of-anna-alone"
        await server.publish(flat(ORANGE), "?name=show&prompt=invert")
        bert = {"Authorization": "Bearer s3cret-of-bert-alone"}
        assert await Reader(server, "show", **bert).next() == ("invert", 0)
        assert (await Reader(server, "show", Authorization="").ask())[0] == 401
