"""What a streamer's hands do in the page, in a real Chromium, before a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from browsers import GROUND, SIZE, camera_chromium, ground, visiting
from peers import serving
from playwright.async_api import Browser
from test_stream_stall import HangingEngine

from stream import rtp

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module", autouse=True)
def corrected() -> Iterator[None]:
    """Run everything as the server does: with the corrections to aiortc."""
    with rtp.installed():
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """One Chromium for all tests; each visit has a fresh profile in it."""
    async with camera_chromium(tmp_path_factory.mktemp("camera")) as running:
        yield running


IS_CAMERA = "document.body.hasAttribute('data-bypass')"


async def test_panic_key_and_freeze(browser: Browser) -> None:
    """0 is the camera at once, wherever the focus is and with a model that hangs; H freezes."""
    built: list[HangingEngine] = []

    def build() -> HangingEngine:
        built.append(HangingEngine(SIZE))
        return built[-1]

    async with serving(build) as server, visiting(browser, server.base) as visit:
        page = visit.page

        async def post(action: str) -> None:
            url = f"{server.base}/sessions/studio/actions/{action}"
            async with server.http.post(url) as response:
                assert response.status == 200

        await visit.go_live("?name=studio&prompt=invert&transition_s=0&mirror=0")
        await visit.until_colour(ground("invert"))
        # Frozen: the page says so, by key and by HTTP; the look below it may change unseen.
        await page.keyboard.press("h")
        await visit.until_text("#hud-state", "Frozen")
        assert await page.get_attribute("#freeze", "aria-pressed") == "true"
        await post("next-style")
        await page.wait_for_selector('[name="style"][value="swap"]:checked', state="attached")
        frames = await visit.watch(1)
        assert len({tuple(frame["bits"]) for frame in frames}) == 1
        await post("freeze")
        await page.wait_for_selector('#freeze[aria-pressed="false"]')
        await visit.until_colour(ground("swap"))
        await page.wait_for_url(lambda url: "prompt=swap" in url)
        # From a menu, a slider, a button, a dialog, while frozen: the camera, and it stays.
        for focus in ("#source", "#strength", "#mirror", "#help-open"):
            await page.keyboard.press("h")
            await page.focus(focus)
            if focus == "#help-open":
                await page.keyboard.press("Enter")
                await page.wait_for_selector("#help[open]")
            for _ in range(3):
                await page.keyboard.press("0")
                assert await page.evaluate(IS_CAMERA), focus
            await visit.until_colour(GROUND)
            await visit.until_text("#hud-state", "Camera")
            assert await page.get_attribute("#freeze", "aria-pressed") == "false"
            await page.keyboard.press("Escape")
            await page.focus("#mirror")
            await page.keyboard.press("b")
            assert not await page.evaluate(IS_CAMERA)
        assert await page.input_value("#source") != "0"
        # Who types a seed or a prompt types.
        await page.fill("#seed", "")
        await page.type("#seed", "100")
        assert not await page.evaluate(IS_CAMERA)
        await visit.until_colour(ground("swap"))
        # The model hangs, and a prompt waits for it.
        built[0].gate.clear()
        try:
            await page.fill("#prompt", "grey")
            await page.keyboard.press("Enter")
            await page.focus("#mirror")
            await page.keyboard.press("0")
            assert await page.evaluate(IS_CAMERA)
            await visit.until_colour(GROUND)
            await visit.until_text("#hud-state", "Camera")
        finally:
            built[0].gate.set()
        await page.wait_for_selector('[name="style"][value="grey"]:checked', state="attached")
        assert await page.evaluate(IS_CAMERA)
        # A new session after a lost one begins with the camera.
        session = server.sessions.camera("studio")
        session.end("the network went away")
        await page.wait_for_selector('body[data-state="reconnecting"]')
        await visit.until_state("live")
        await visit.until_text("#hud-state", "Camera")
        assert server.sessions.camera("studio").controls.bypass
        await post("bypass")
        await visit.until_colour(ground("grey"))
        # What HTTP has set is kept too.
        await post("freeze")
        await page.wait_for_selector('#freeze[aria-pressed="true"]')
        server.sessions.camera("studio").end("the network went away")
        await page.wait_for_selector('body[data-state="reconnecting"]')
        await visit.until_state("live")
        await visit.until_text("#hud-state", "Frozen")
        # Its goodbye to the two sessions that ended without it.
        assert len(visit.complaints) == 2, visit.complaints
        assert all("404" in complaint for complaint in visit.complaints)
