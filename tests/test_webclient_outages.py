"""A network that goes away, a page that sleeps, a machine that sleeps: a real Chromium wakes up."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from browsers import VIDEOS, Visit, ground, make_engine, visiting
from peers import Serving, flat, serving
from playwright.async_api import Browser
from test_stream_session import DEADLINE_S

from stream.camera_session import CameraSession
from stream.config import ServerConfig
from stream.exposure import Exposure
from stream.icefilter import FilteredProtocol

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("corrected"),
]


class Cable:
    """What all datagrams of the server go through, both ways, until it is pulled."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_pulled = False
        self.lost_in = 0
        self._changed = asyncio.Event()
        take, data, stun = (
            FilteredProtocol.take_datagram,
            FilteredProtocol.send_data,
            FilteredProtocol.send_stun,
        )

        def take_datagram(protocol: FilteredProtocol, *arguments: Any) -> None:
            if not self.is_pulled:
                return take(protocol, *arguments)
            self.lost_in += 1
            return self._changed.set()

        async def send_data(protocol: FilteredProtocol, *arguments: Any) -> None:
            if not self.is_pulled:
                await data(protocol, *arguments)

        def send_stun(protocol: FilteredProtocol, *arguments: Any) -> None:
            if not self.is_pulled:
                stun(protocol, *arguments)

        monkeypatch.setattr(FilteredProtocol, "take_datagram", take_datagram)
        monkeypatch.setattr(FilteredProtocol, "send_data", send_data)
        monkeypatch.setattr(FilteredProtocol, "send_stun", send_stun)

    async def until_lost(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while self.lost_in < count:
                self._changed.clear()
                await self._changed.wait()


def only_session(server: Serving) -> CameraSession:
    (session,) = server.sessions._cameras.values()
    return session


async def until_freed(server: Serving, session: CameraSession) -> None:
    """Wait until a session has ended by itself."""
    async with asyncio.timeout(60):
        task = server.app_tasks().get(session.id)
        if task is not None:
            await asyncio.wait([task])
    assert session.id not in server.app_tasks()


async def until_moving(visit: Visit, video: str = VIDEOS["live"]) -> None:
    """Wait until the page shows ten frames more."""
    await visit.page.evaluate(
        f"""() => new Promise((resolve) => {{
            let left = 10;
            const next = () => (left-- ? {video}.requestVideoFrameCallback(next) : resolve());
            next();
        }})"""
    )


async def test_short_outage_costs_no_session(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a second without a network: the same session goes on, and the picture moves again."""
    cable = Cable(monkeypatch)
    async with serving(make_engine) as server, visiting(browser, server.base) as visit:
        await visit.go_live("?prompt=invert&transition_s=0")
        session = only_session(server)
        cable.is_pulled = True
        await cable.until_lost(20)
        cable.is_pulled = False
        await until_moving(visit)
        await visit.until_colour(ground("invert"))
        assert only_session(server) is session
        assert len(visit.offers) == 1
        visit.assert_clean()


async def test_network_goes_away_and_returns(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page says that it lost the server, shows the camera, and is back with its settings.

    So is the bare page of somebody who watches. The server has freed what it had no sign of.
    """
    cable = Cable(monkeypatch)
    config = ServerConfig(silence_timeout_s=3.0)
    async with (
        serving(make_engine, config) as server,
        visiting(browser, server.base) as visit,
        visiting(browser, server.base) as viewer,
    ):
        await visit.open("?prompt=invert&transition_s=0")
        await visit.page.evaluate("document.getElementById('live').setAttribute('name', 'studio')")
        await visit.page.click("#start")
        await visit.until_state("live")
        await visit.page.click('label.style:has([value="grey"])')
        await visit.until_colour(ground("grey"))
        await viewer.open("view/studio")
        await viewer.until_state("live")
        session = only_session(server)
        cable.is_pulled = True
        for each in (visit, viewer):
            await each.page.context.set_offline(True)
        await visit.until_text("#hud-state", "No picture")
        await visit.until_state("reconnecting")
        await visit.until_text("#message-text", "does not answer")
        assert await visit.page.is_visible("#camera")
        await until_freed(server, session)
        assert len(server.sessions) == 0
        assert len(visit.offers) == 1
        cable.is_pulled = False
        for each in (visit, viewer):
            await each.page.context.set_offline(False)
        await visit.until_state("live")
        await visit.until_colour(ground("grey"))
        await until_moving(visit)
        assert len(visit.offers) == 2
        assert await visit.page.is_hidden("#message")
        assert only_session(server).controls.prompt == "grey"
        await viewer.until_state("live")
        await until_moving(viewer, 'document.getElementById("screen")')
        assert len(server.sessions) == 2


TICK = """() => {
    let before_ms = performance.now();
    window.longestPause_ms = 0;
    setInterval(() => {
        const now_ms = performance.now();
        window.longestPause_ms = Math.max(window.longestPause_ms, now_ms - before_ms);
        before_ms = now_ms;
    }, 50);
}"""


@asynccontextmanager
async def stopped(browser: Browser, kinds: tuple[str, ...] = ()) -> AsyncIterator[None]:
    """Stop a browser's processes, or those of some kinds, within a block."""
    devtools = await browser.new_browser_cdp_session()
    told = (await devtools.send("SystemInfo.getProcessInfo"))["processInfo"]
    pids = [int(process["id"]) for process in told if not kinds or process["type"] in kinds]
    assert pids, told
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def test_page_that_slept_is_live_when_it_wakes(browser: Browser) -> None:
    """A tab that stood still for longer than a silence goes on in its session.

    Its process is stopped, and with it camera, connection and all: a headless Chromium does not
    freeze a page that it believes to be seen.
    """
    config = ServerConfig(exposure=Exposure(min_fps=0))  # room for two, on any machine
    async with serving(make_engine, config) as server, visiting(browser, server.base) as visit:
        await visit.go_live("?prompt=invert&transition_s=0")
        session = only_session(server)
        await visit.page.evaluate(TICK)
        awake = await server.connect(flat((200, 120, 40)))
        async with stopped(browser, ("renderer",)):
            # Five seconds of another camera; a page that is awake calls four of silence the end.
            await awake.until_frames(150)
        await until_moving(visit)
        assert await visit.page.evaluate("window.longestPause_ms") > 3000, "it did not sleep"
        await visit.until_colour(ground("invert"))
        assert server.app_tasks().keys() >= {session.id}
        assert len(visit.offers) == 1
        visit.assert_clean()


def is_offer(method: str, url: str) -> bool:
    return method == "POST" and "/sessions" in url


async def test_machine_that_slept_is_live_when_it_wakes(browser: Browser) -> None:
    """A laptop that was shut until the server gave its session up opens to a live picture."""
    config = ServerConfig(silence_timeout_s=2.0)
    async with serving(make_engine, config) as server, visiting(browser, server.base) as visit:
        await visit.go_live("?prompt=grey&transition_s=0")
        await visit.until_colour(ground("grey"))
        session = only_session(server)
        offered = visit.page.expect_request(lambda asked: is_offer(asked.method, asked.url))
        async with offered, stopped(browser):
            await until_freed(server, session)
            assert len(server.sessions) == 0
        await visit.until_state("live")
        await visit.until_colour(ground("grey"))
        await until_moving(visit)
        assert only_session(server) is not session
        assert only_session(server).controls.prompt == "grey"
