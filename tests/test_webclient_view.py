"""The bare page that plays one session, in a real Chromium, before a real server."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
import pytest_asyncio
from aiortc import MediaStreamTrack
from browsers import PAGE_DEADLINE_MS, chromium
from engines import ColourEngine
from peers import Publisher, Serving, serving
from PIL import Image
from playwright.async_api import Browser, Page

from pipeline.engines import Size
from stream.config import ServerConfig

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("corrected"),
]

LEFT, RIGHT = (200, 120, 40), (40, 160, 60)


def two_halves(_: int) -> np.ndarray:
    """Paint the left and the right of a 4:3 picture in different colours."""
    image = np.full((120, 160, 3), LEFT, np.uint8)
    image[:, 80:] = RIGHT
    return image


def inverted(colour: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(255 - level for level in colour)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """A Chromium that plays sound unasked, as OBS does."""
    async with chromium("--autoplay-policy=no-user-gesture-required") as running:
        yield running


@asynccontextmanager
async def viewing(browser: Browser, url: str) -> AsyncIterator[Page]:
    """A Browser Source, twice as wide as high; fails if the page complains."""
    context = await browser.new_context(viewport={"width": 640, "height": 320})
    context.set_default_timeout(PAGE_DEADLINE_MS)
    page = await context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    try:
        await page.goto(url)
        yield page
    finally:
        await context.close()
    # What is not there yet is 404, which a browser logs as an error.
    serious = [each for each in complaints if "404" not in each and not each.startswith("info")]
    assert not serious


async def until_state(page: Page, state: str) -> None:
    await page.wait_for_selector(f'body[data-state="{state}"]')


async def look(page: Page) -> Any:
    """Return what OBS would lay over its scene: (320, 640, 4), with transparency."""
    png = await page.screenshot(omit_background=True)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")).astype(int)


async def until_shown(page: Page, at: tuple[int, int], colour: tuple[int, ...]) -> Any:
    """Wait until a point has a colour; return the whole picture."""
    async with asyncio.timeout(PAGE_DEADLINE_MS / 1000):
        while True:
            picture = await look(page)
            if np.abs(picture[at][:3] - colour).max() <= 24:
                return picture


def engine() -> ColourEngine:
    return ColourEngine(Size(160, 120))


async def publish(server: Serving, query: str = "") -> Any:
    return await server.publish(two_halves, f"?name=studio&prompt=swap{query}")


async def test_transparent_until_live_and_again_after_it(browser: Browser) -> None:
    """The page waits unseen for its session, plays it, and goes on with the next of its name."""
    async with serving(engine) as server:
        url = f"{server.base}/view/studio?prompt=invert&transition_s=0"
        async with viewing(browser, url) as page:
            await until_state(page, "waiting")
            assert (await look(page))[..., 3].max() == 0
            first = await publish(server)
            await until_state(page, "live")
            picture = await until_shown(page, (160, 200), inverted(LEFT))
            assert np.abs(picture[160, 440, :3] - inverted(RIGHT)).max() <= 24
            assert picture[160, 20, 3] == picture[160, 620, 3] == 0  # beside a 4:3 picture
            async with server.http.delete(server.base + first.location) as response:
                assert response.status == 200
            await until_state(page, "waiting")
            assert (await look(page))[..., 3].max() == 0
            await publish(server)
            await until_state(page, "live")
            await until_shown(page, (160, 200), inverted(LEFT))


async def test_settings_of_the_picture(browser: Browser) -> None:
    """The query fills the window, mirrors, and mutes; it leaves the session's controls alone."""
    async with serving(engine) as server:
        publisher = await publish(server, "&bypass=1")
        url = f"{server.base}/view/{publisher.id}?fit=cover&mirror=1&muted=1"
        async with viewing(browser, url) as page:
            await until_state(page, "live")
            picture = await until_shown(page, (160, 10), RIGHT)
            assert np.abs(picture[160, 630, :3] - LEFT).max() <= 24
            assert (await page.evaluate("document.querySelector('video').muted")) is True
            async with server.http.get(f"{server.base}/sessions/studio/controls") as response:
                controls = await response.json()
            assert (controls["prompt"], controls["bypass"]) == ("swap", True)


class LeftTone(MediaStreamTrack):
    """A tone in the left ear alone."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._number = 0

    async def recv(self) -> av.AudioFrame:
        await asyncio.sleep(0.02)  # a microphone's clock
        at = np.arange(960) + self._number * 960
        samples = np.zeros((1, 1920), np.int16)
        samples[0, ::2] = 12000 * np.sin(2 * np.pi * 440 * at / 48000)
        frame = av.AudioFrame.from_ndarray(samples, "s16", "stereo")
        frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
        frame.pts = self._number * 960
        self._number += 1
        return frame


LISTEN = """async () => {
    const context = new AudioContext();
    const source = context.createMediaStreamSource(document.querySelector('video').srcObject);
    const ears = source.connect(context.createChannelSplitter(2));
    const [left, right] = [0, 1].map((ear) => {
        const analyser = context.createAnalyser();
        ears.connect(analyser, ear);
        const samples = new Float32Array(analyser.fftSize);
        return () => {
            analyser.getFloatTimeDomainData(samples);
            return Math.max(...samples);
        };
    });
    while (left() < 0.1) await new Promise((resolve) => setTimeout(resolve, 50));
    return [left(), right()];
}"""


async def test_sound_is_played_in_both_ears_apart(browser: Browser) -> None:
    """Stereo arrives as stereo: what is on the left alone is heard there alone."""
    async with serving(engine) as server:
        publisher = Publisher(server.http, server.base, two_halves)
        server.peers.append(publisher)
        publisher.pc.addTransceiver(LeftTone(), "sendonly")
        await publisher.connect("?name=studio")
        async with viewing(browser, f"{server.base}/view/studio") as page:
            await until_state(page, "live")
            async with asyncio.timeout(PAGE_DEADLINE_MS / 1000):
                left, right = await page.evaluate(LISTEN)
            assert left > 0.1
            assert right < left / 10


async def test_token_comes_after_the_hash(browser: Browser) -> None:
    """A server that asks for a token is opened by an address that nobody logs."""
    async with serving(engine, ServerConfig(token="s3cret")) as server:
        server.http.headers["Authorization"] = "Bearer s3cret"
        await publish(server)
        async with viewing(browser, f"{server.base}/view/studio?prompt=invert#s3cret") as page:
            await until_state(page, "live")
            await until_shown(page, (160, 200), inverted(LEFT))


async def test_viewer_that_is_closed_leaves_at_once(browser: Browser) -> None:
    """Closing the page ends its session on the server."""
    async with serving(engine) as server:
        await publish(server)
        async with viewing(browser, f"{server.base}/view/studio") as page:
            await until_state(page, "live")
            (task,) = [t for name, t in server.app_tasks().items() if name in viewers(server)]
            await page.goto("about:blank")
            await asyncio.wait([task], timeout=PAGE_DEADLINE_MS / 1000)
            assert task.done()
        assert len(server.sessions) == 1


async def test_session_of_the_page_is_shown_under_its_name(browser: Browser) -> None:
    """A page opened with a name gives its session that name; it is not in the page's link."""
    async with serving(engine) as server:
        page = await (await browser.new_context()).new_page()
        await page.goto(f"{server.base}/?name=me&source=test&prompt=invert&autostart=1")
        await page.wait_for_selector('body[data-state="live"]', timeout=PAGE_DEADLINE_MS)
        assert "name=" not in page.url
        async with viewing(browser, f"{server.base}/view/me") as view:
            await until_state(view, "live")
            assert await view.evaluate("document.querySelector('video').videoWidth") >= 320
        await page.context.close()


def viewers(server: Serving) -> list[str]:
    return list(server.sessions._viewers)


async def test_overlay_tells_style_and_viewers(browser: Browser) -> None:
    """Words only where they are asked for, true at every moment, readable over white and black."""
    bright = True

    def paint(_: int) -> np.ndarray:
        return np.full((120, 160, 3), 255 if bright else 0, np.uint8)

    async with serving(engine) as server:
        await server.publish(paint, "?name=studio&prompt=same")
        url = f"{server.base}/view/studio"
        async with viewing(browser, f"{url}?fit=cover&overlay=viewers,style,notice") as page:
            await until_state(page, "live")
            words = page.locator("#overlay span:visible")
            await page.locator("#overlay", has_text="1 viewer").wait_for()
            assert await words.all_text_contents() == ["1 viewer", "same"]
            async with viewing(browser, url) as plain:
                await until_state(plain, "live")
                assert await plain.locator("#overlay").count() == 0
                await page.locator("#overlay", has_text="2 viewers").wait_for()
            await page.locator("#overlay", has_text="1 viewer").wait_for()
            for level in (255, 0):
                bright = level == 255
                picture = await until_shown(page, (300, 600), (level,) * 3)
                box = await words.first.bounding_box()
                assert box is not None
                x, y = int(box["x"]), int(box["y"])
                part = picture[y : y + int(box["height"]), x : x + int(box["width"]), :3]
                # WCAG 2.2 asks for a contrast of 4.5: white on 118 or darker.
                middle = part[:, part.shape[1] // 8 : -part.shape[1] // 8].mean(-1)
                assert np.median(middle) <= 110
                assert middle.max() >= 240
            controls = f"{server.base}/sessions/studio/controls"
            for change, shown in [
                ({"prompt": "swap"}, ["1 viewer", "swap"]),
                ({"bypass": True}, ["1 viewer"]),
            ]:
                async with server.http.patch(controls, json=change) as response:
                    assert response.status == 200
                await page.wait_for_function(
                    "(count) => [...document.querySelectorAll('#overlay span')]"
                    ".filter((part) => !part.hidden).length === count",
                    arg=len(shown),
                )
                await page.locator("#overlay", has_text=shown[-1]).wait_for()
                assert await words.all_text_contents() == shown
            server.sessions.drain("The server is about to stop.", 60)
            await page.locator("#overlay", has_text="The server is about to stop.").wait_for()
