"""Recording and clips by the page, in a real Chromium, before a real server."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from browsers import PAGE_DEADLINE_MS, Visit, camera_chromium, make_engine, visiting
from films import read_film
from peers import serving

from stream.config import ServerConfig
from stream.keeping import Keeping

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("corrected")]

SHOTS = os.environ.get("SHOTS")
PLAY = """async (base64) => {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const video = document.createElement("video");
    video.muted = true;
    video.src = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" }));
    document.body.append(video);
    const until = (type) => new Promise((resolve, reject) => {
        video.addEventListener(type, resolve, { once: true });
        video.addEventListener("error", () => reject(new Error(video.error.message)));
    });
    await until("loadeddata");
    video.currentTime = video.duration / 2;
    await until("seeked");
    await video.play();
    const told = { width: video.videoWidth, duration_s: video.duration, at_s: video.currentTime };
    video.remove();
    return told;
}"""


SESSION = 'document.getElementById("live").session'


async def play(visit: Visit, film: bytes) -> dict[str, float]:
    """Play a file in the browser, from its middle; return its width and length."""
    told: dict[str, float] = await visit.page.evaluate(PLAY, base64.b64encode(film).decode())
    return told


def read_bytes(path: Path) -> bytes:
    return path.read_bytes()


async def shoot(visit: Visit, name: str) -> None:
    if SHOTS:
        await visit.page.screenshot(path=f"{SHOTS}/{name}.png")


async def test_a_person_records_and_saves_clips(tmp_path: Path) -> None:
    """R records under a red sign and ends it, C saves a clip; a browser plays both; words tell."""
    films = tmp_path / "films"
    films.mkdir()
    config = ServerConfig(keeping=Keeping(films, clips=True, spare_bytes=0))
    async with (
        camera_chromium(tmp_path) as browser,
        serving(make_engine, config) as server,
        visiting(browser, server.base) as visit,
    ):
        page = visit.page
        await visit.open("?prompt=invert&seed=3")
        await page.wait_for_selector("#record:not([hidden])", state="attached")
        words = await visit.text("#stored")
        assert "last 30 seconds" in words
        assert "unless it is recorded" in words
        await page.click("#start")
        await visit.until_state("live")
        assert not await page.is_visible("#recording")
        await page.keyboard.press("r")
        await page.wait_for_selector("#recording:not([hidden])")
        assert await page.get_attribute("#record", "aria-pressed") == "true"
        await page.wait_for_function(
            '() => document.getElementById("recording-time").textContent >= "00:02"', polling=50
        )
        await shoot(visit, "recording")
        red, green, blue = await page.evaluate(
            'getComputedStyle(document.getElementById("recording")).backgroundColor'
            ".match(/[0-9.]+/g).slice(0, 3).map(Number)"
        )
        assert red > 2 * max(green, blue), "the sign is red"
        # The session is lost: the page opens another one and records on.
        visit.assert_clean()
        lost = await page.evaluate(SESSION)
        await server.sessions.end(server.sessions.camera(lost))
        await page.wait_for_function(
            f"""(lost) => ![lost, ""].includes({SESSION})
                && !document.getElementById("recording").hidden""",
            arg=lost,
            polling=50,
        )
        assert len(os.listdir(films)) == 2
        await page.click("#details-open")
        await visit.until_text("#facts", "on the server’s disk: 20")
        await page.keyboard.press("r")
        await page.wait_for_selector("#recording", state="hidden")
        toast = await visit.text("#toast")
        name, goes_on = sorted(os.listdir(films))
        assert goes_on in toast
        async with page.expect_download(timeout=PAGE_DEADLINE_MS) as downloading:
            await page.keyboard.press("c")
        download = await downloading.value
        assert download.suggested_filename.startswith("invert-2")
        assert download.suggested_filename.endswith(".mp4")
        clip = read_bytes(await download.path())
        told = json.loads(read_film(clip).tags["comment"])
        assert (told["prompt"], told["seed"]) == ("invert", 3)
        for film in (clip, (films / name).read_bytes()):
            played = await play(visit, film)
            assert played["width"] == read_film(film).images[0].shape[1]
            assert played["duration_s"] >= (0.2 if film is clip else 2)
            assert played["at_s"] >= played["duration_s"] / 2 - 0.1
        # The page says goodbye to the session that was lost, which the server does not know.
        assert not [complaint for complaint in visit.complaints if "404" not in complaint]

    async with (
        camera_chromium(tmp_path) as browser,
        serving(make_engine) as server,
        visiting(browser, server.base) as visit,
    ):
        await visit.open("?prompt=invert")
        assert await visit.text("#stored") == "nothing is stored"
        await shoot(visit, "nothing")
        await visit.page.click("#start")
        await visit.until_state("live")
        for button in ("#record", "#clip", "#record-camera-choice"):
            assert not await visit.page.is_visible(button)
        for key, flag in (("r", "--record-dir"), ("c", "--clips")):
            await visit.page.keyboard.press(key)
            await visit.until_text("#toast", f"it was started without {flag}")
        await visit.page.click("#details-open")
        await visit.until_text("#facts", "Storednothing")
