"""The page's microphone, in a real Chromium with a fake one that beeps."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from browsers import PAGE_DEADLINE_MS, chromium, make_engine, visiting, write_camera
from peers import serving
from playwright.async_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("corrected")]

COUNT_ASKED = """
    window.asked = [];
    const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = (wanted) => {
        window.asked.push(Object.keys(wanted).filter((kind) => wanted[kind]).join());
        return ask(wanted);
    };
"""
LISTEN = """() => {
    const context = new AudioContext();
    const analyser = context.createAnalyser();
    const samples = new Float32Array(analyser.fftSize);
    context.createMediaStreamSource(document.querySelector('video').srcObject).connect(analyser);
    window.hearAgain = () => (window.loudest = 0);
    hearAgain();
    setInterval(() => {
        analyser.getFloatTimeDomainData(samples);
        window.loudest = Math.max(window.loudest, ...samples);
    }, 20);
}"""


async def heard(view: Page) -> None:
    """Wait for the next beep."""
    await view.evaluate("hearAgain()")
    await view.wait_for_function("() => window.loudest > 0.05", polling=50)


async def until_silent(view: Page) -> None:
    """Wait until two seconds have passed without a beep, of which there is one in each."""
    async with asyncio.timeout(PAGE_DEADLINE_MS / 1000):
        while True:
            await view.evaluate("hearAgain()")
            await view.wait_for_timeout(2000)
            if await view.evaluate("window.loudest") < 0.01:
                return


async def test_microphone_is_asked_for_when_switched_on_and_heard_by_viewers(
    tmp_path: Path,
) -> None:
    """It is off until switched on; then viewers hear it, in the next session too, until Stop."""
    camera = write_camera(tmp_path / "camera.y4m")
    flags = (
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={camera}",
        "--autoplay-policy=no-user-gesture-required",
    )
    async with (
        chromium(*flags) as browser,
        serving(make_engine) as server,
        visiting(browser, server.base, permissions=["camera", "microphone"]) as visit,
    ):
        page = visit.page
        await page.add_init_script(COUNT_ASKED)
        await visit.open("?prompt=invert&name=me")
        await page.click("#microphone")
        await visit.until_text("#toast", "Press Start first")
        await page.click("#start")
        await visit.until_state("live")
        assert await page.evaluate("window.asked") == ["video"]
        view = await page.context.new_page()
        await view.goto(f"{server.base}/view/me")
        await view.wait_for_selector('body[data-state="live"]')
        await view.evaluate(LISTEN)
        await until_silent(view)

        await page.bring_to_front()
        await page.keyboard.press("v")
        await page.wait_for_selector('#microphone[aria-pressed="true"]')
        assert await page.evaluate("window.asked") == ["video", "audio"]
        await heard(view)
        kinds = "document.getElementById('live').video.srcObject.getTracks().map((t) => t.kind)"
        assert sorted(await page.evaluate(kinds)) == ["audio", "video"]
        assert await page.evaluate("document.getElementById('live').video.muted")

        await page.click("#microphone")
        await page.wait_for_selector('#microphone[aria-pressed="false"]')
        await until_silent(view)
        await page.click("#microphone")
        await heard(view)

        # A session that is opened again by itself has it still.
        await server.sessions.end(server.sessions.camera("me"))
        await visit.until_state("reconnecting")
        await visit.until_state("live")
        await view.wait_for_selector('body[data-state="waiting"]')
        await view.wait_for_selector('body[data-state="live"]')
        await view.evaluate(LISTEN)
        await heard(view)

        await page.click("#start")
        await visit.until_state("closed")
        await page.wait_for_selector('#microphone[aria-pressed="false"]')
        # The browser's own line about the session that was ended for it.
        assert all("404" in complaint for complaint in visit.complaints)


async def test_microphone_that_is_not_allowed_stays_off(tmp_path: Path) -> None:
    """A refusal is told in a sentence that says what to do, and the picture goes on."""
    camera = write_camera(tmp_path / "camera.y4m")
    flags = (
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={camera}",
    )
    async with (
        chromium(*flags) as browser,
        serving(make_engine) as server,
        visiting(browser, server.base, permissions=["camera"]) as visit,
    ):
        await visit.go_live("?prompt=invert")
        await visit.page.click("#microphone")
        await visit.until_text("#toast", "The microphone is not allowed here.")
        assert await visit.page.get_attribute("#microphone", "aria-pressed") == "false"
        assert await visit.page.evaluate("document.body.dataset.state") == "live"
        visit.assert_clean()
