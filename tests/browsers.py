"""A real Chromium for tests: its fake camera, its pages, and what goes wrong in them."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av import VideoFrame
from engines import TRANSFORMS, ColourEngine, transform
from peers import serving
from playwright.async_api import Browser, Page, async_playwright

from pipeline.engines import Engine, Size

NAMES = ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
)

PAGE_DEADLINE_MS = 60_000  # for machines that do much else at once
WIDTH, HEIGHT = 320, 240
SIZE = Size(WIDTH, HEIGHT)
RATE_HZ = 30
BITS = 7
NUMBERS = 2**BITS
BIT_PX = 40
GROUND = (200, 120, 40)
"""The camera's colour below its number."""


def find_chromium() -> str:
    """Return its path; without one skip, or fail where that must not happen."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        sentence = f"no Chromium is installed: none of {', '.join(NAMES)} is on the path"
        if os.environ.get("CI"):
            pytest.fail(sentence)
        pytest.skip(sentence)
    return path


def paint(number: int) -> np.ndarray:
    """One frame of the camera: its number in black and white squares above a plain colour."""
    image = np.full((HEIGHT, WIDTH, 3), GROUND, np.uint8)
    for bit in range(BITS):
        image[:BIT_PX, bit * BIT_PX : (bit + 1) * BIT_PX] = 235 if number >> bit & 1 else 20
    return image


def write_camera(path: Path) -> Path:
    """Write the video that the fake camera plays again and again."""
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{RATE_HZ}:1 Ip A1:1 C420\n".encode())
        for number in range(NUMBERS):
            frame = VideoFrame.from_ndarray(paint(number), "rgb24").reformat(format="yuv420p")
            file.write(b"FRAME\n" + frame.to_ndarray().tobytes())
    return path


@asynccontextmanager
async def chromium(*flags: str) -> AsyncIterator[Browser]:
    """Run a Chromium with a fresh profile."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=find_chromium(), args=[*FLAGS, *flags]
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def camera_chromium(folder: Path) -> AsyncIterator[Browser]:
    """Run a Chromium with a fake camera that plays the video of :func:`write_camera`."""
    video = write_camera(folder / "camera.y4m")
    async with chromium(
        "--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={video}"
    ) as browser:
        yield browser


def ground(prompt: str, strength: float = 1.0) -> tuple[int, int, int]:
    """Return what a style makes of the camera's ground."""
    image = np.full((1, 1, 3), GROUND, np.uint8)
    r, g, b = transform(image, TRANSFORMS[prompt], strength)[0, 0].tolist()
    return r, g, b


def make_engine() -> ColourEngine:
    """Return the engine that most visits are served by."""
    return ColourEngine(SIZE)


class Visit:
    """One page, seen by one person for the first time; keeps what it complained about."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.base = base
        self.complaints: list[str] = []
        self.offers: list[str] = []
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("request", self._on_request)

    def assert_clean(self) -> None:
        """Fail if the page logged an error, broke its policy or asked anybody else."""
        assert not self.complaints, self.complaints

    async def open(self, query: str = "") -> None:
        await self.page.goto(f"{self.base}/{query}")

    async def until_state(self, state: str) -> None:
        await self.page.wait_for_selector(f'body[data-state="{state}"]')

    async def go_live(self, query: str = "") -> None:
        """Open the page, start the camera, wait for the translated picture."""
        await self.open(query)
        await self.page.click("#start")
        await self.until_state("live")

    async def text(self, selector: str) -> str:
        """Wait for an element to be seen; return its words."""
        return (await (await self.page.wait_for_selector(selector)).inner_text()).strip()

    async def until_text(self, selector: str, words: str) -> None:
        """Wait until an element is seen and says ``words``."""
        await self.page.locator(selector, has_text=words).wait_for()

    async def until_colour(
        self, colour: tuple[int, int, int], what: str = "live", tolerance: int = 24
    ) -> None:
        """Wait until the ground of a picture has a colour; ``what`` is live or camera."""
        await self.page.wait_for_function(
            f"""() => {{
                const [r, g, b] = {READ_GROUND}({VIDEOS[what]});
                const wanted = {list(colour)};
                return Math.max(...[r, g, b].map((c, i) => Math.abs(c - wanted[i]))) <= {tolerance};
            }}""",
            polling=50,
        )

    async def watch(self, seconds: float) -> list[dict[str, Any]]:
        """Return the number and the ground's colour of each frame shown in some seconds."""
        frames: list[dict[str, Any]] = await self.page.evaluate(WATCH, seconds * 1000)
        return frames

    def _on_console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _on_request(self, request: Any) -> None:
        if not request.url.startswith((self.base, "data:", "blob:")):
            self.complaints.append(f"asked {request.url}")
        if request.method == "POST" and "/sessions" in request.url:
            self.offers.append(request.url)


@asynccontextmanager
async def visiting(browser: Browser, base: str, **options: object) -> AsyncIterator[Visit]:
    """Let a person on a laptop come who allows the camera, unless ``options`` say otherwise."""
    options = {"permissions": ["camera"], "viewport": {"width": 1280, "height": 800}, **options}
    context = await browser.new_context(**options)  # type: ignore[arg-type]
    context.set_default_timeout(PAGE_DEADLINE_MS)
    try:
        yield Visit(await context.new_page(), base)
    finally:
        await context.close()


@asynccontextmanager
async def visited(
    browser: Browser, factory: Callable[[], Engine] = make_engine, **options: object
) -> AsyncIterator[Visit]:
    """Run a server and a visit to its page."""
    async with serving(factory) as server, visiting(browser, server.base, **options) as visit:
        yield visit


VIDEOS = {
    "live": 'document.getElementById("live").video',
    "camera": 'document.getElementById("camera")',
}
READ_GROUND = """((video) => {
    const canvas = new OffscreenCanvas(1, 1);
    const ctx = canvas.getContext("2d");
    const y = video.videoHeight * 0.7;
    ctx.drawImage(video, video.videoWidth / 2, y, 4, 4, 0, 0, 1, 1);
    return [...ctx.getImageData(0, 0, 1, 1).data].slice(0, 3);
})"""
WATCH = f"""(duration_ms) => new Promise((resolve) => {{
    const video = {VIDEOS["live"]};
    const canvas = new OffscreenCanvas({WIDTH}, {HEIGHT});
    const ctx = canvas.getContext("2d", {{ willReadFrequently: true }});
    const frames = [];
    const end = performance.now() + duration_ms;
    const look = () => {{
        ctx.drawImage(video, 0, 0, {WIDTH}, {HEIGHT});
        const at = (x, y) => [...ctx.getImageData(x, y, 1, 1).data].slice(0, 3);
        const bits = Array.from({{ length: {BITS} }}, (_, i) =>
            at(i * {BIT_PX} + {BIT_PX // 2}, {BIT_PX // 2})[1]);
        frames.push({{ bits, ground: at({WIDTH // 2}, {HEIGHT * 7 // 10}) }});
        if (performance.now() < end) video.requestVideoFrameCallback(look);
        else resolve(frames);
    }};
    video.requestVideoFrameCallback(look);
}})"""
