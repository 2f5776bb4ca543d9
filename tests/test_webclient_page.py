"""The page, in a real Chromium, before a real server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import aioice.ice
import cv2
import numpy as np
import pytest
import pytest_asyncio
from aiohttp import web
from browsers import GROUND, HEIGHT, NUMBERS, VIDEOS, WIDTH, Visit, chromium, write_camera
from engines import TRANSFORMS, ColourEngine, transform
from peers import serving
from playwright.async_api import Browser

from pipeline.engines import Engine, Job, Size
from stream import rtp
from stream.config import ModelEntry, ServerConfig
from stream.server import create_app

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

SIZE = Size(WIDTH, HEIGHT)
PAGE_DEADLINE_MS = 60_000  # for machines that do much else at once


def ground(prompt: str, strength: float = 1.0) -> tuple[int, int, int]:
    """Return what a style makes of the camera's ground."""
    image = np.full((1, 1, 3), GROUND, np.uint8)
    r, g, b = transform(image, TRANSFORMS[prompt], strength)[0, 0].tolist()
    return r, g, b


def make_engine() -> ColourEngine:
    return ColourEngine(SIZE)


@pytest.fixture(scope="module", autouse=True)
def corrected() -> Iterator[None]:
    """Run everything as the server does: with the corrections to aiortc."""
    with rtp.installed():
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """One Chromium for all tests; each visit has a fresh profile in it."""
    video = write_camera(tmp_path_factory.mktemp("camera") / "camera.y4m")
    async with chromium(
        "--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={video}"
    ) as running:
        yield running


@asynccontextmanager
async def visiting(browser: Browser, base: str, **options: object) -> AsyncIterator[Visit]:
    """A person on a laptop who allows the camera, unless ``options`` say otherwise."""
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
    """A server of its own and a visit to its page."""
    async with serving(factory) as server, visiting(browser, server.base, **options) as visit:
        yield visit


def decode_png(data: bytes) -> np.ndarray:
    """Return an RGB image of whole numbers."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image[..., ::-1].astype(int)


def read_number(bits: list[int]) -> int:
    """Return the number in a frame that came back inverted."""
    return sum(1 << place for place, level in enumerate(bits) if level < 128)


async def test_displayed_frames_are_translated_and_in_order(browser: Browser) -> None:
    """The page goes live; each frame it shows is translated, and no older than the one before."""
    async with visited(browser) as visit:
        await visit.go_live("?prompt=invert&transition_s=0")
        frames = await visit.watch(3)
        numbers = [read_number(frame["bits"]) for frame in frames]
        steps = [(after - before) % NUMBERS for before, after in pairwise(numbers)]
        assert len(set(numbers)) >= 15
        assert max(steps) < NUMBERS // 2, f"went back: {numbers}"
        wanted = np.array(ground("invert"))
        assert max(np.abs(np.array(f["ground"]) - wanted).max() for f in frames) < 24
        assert await visit.page.evaluate("document.body.dataset.engine") == "live"
        assert int(await visit.text("#hud-fps")) > 0
        assert 0 < int(await visit.text("#hud-delay")) < 1000
        visit.assert_clean()


async def test_controls_act(browser: Browser) -> None:
    """A style from the shelf, the next one by key, and the strength change the picture."""
    async with visited(browser) as visit:
        await visit.go_live("?prompt=invert&transition_s=0")
        await visit.until_colour(ground("invert"))
        await visit.page.click('label.style:has([value="grey"])')
        await visit.until_colour(ground("grey"))
        await visit.page.click("#stage", position={"x": 600, "y": 60})
        await visit.page.keyboard.press("[")
        await visit.until_colour(ground("swap"))
        await visit.page.focus("#strength")
        await visit.page.keyboard.press("Home")
        await visit.until_colour(GROUND)
        assert await visit.page.input_value("#prompt") == "swap"
        assert await visit.page.is_checked('[name="style"][value="swap"]')
        visit.assert_clean()


async def test_refused_prompt_keeps_the_style(browser: Browser) -> None:
    """Unknown words are answered beside the prompt box, and the old style stays."""
    async with visited(browser) as visit:
        await visit.go_live("?prompt=invert&transition_s=0")
        await visit.page.fill("#prompt", "marmalade")
        await visit.page.keyboard.press("Enter")
        assert "marmalade" in await visit.text("#prompt-error")
        assert await visit.page.get_attribute("#prompt", "aria-invalid") == "true"
        frames = await visit.watch(0.5)
        wanted = np.array(ground("invert"))
        assert max(np.abs(np.array(f["ground"]) - wanted).max() for f in frames) < 24
        assert "marmalade" not in visit.page.url
        await visit.page.fill("#prompt", "grey")
        await visit.page.keyboard.press("Enter")
        await visit.until_colour(ground("grey"))
        assert await visit.page.is_hidden("#prompt-error")
        visit.assert_clean()


async def test_prompt_of_a_link_that_is_refused(browser: Browser) -> None:
    """A link with unknown words says so, and the picture comes in the model's own style."""
    async with visited(browser) as visit:
        await visit.open("?prompt=marmalade&strength=1")
        assert "marmalade" in await visit.text("#prompt-error")
        await visit.page.click("#start")
        await visit.until_state("live")
        await visit.until_colour(ground("invert"))


async def test_bypass_shows_the_camera(browser: Browser) -> None:
    """B shows the camera itself, at once, and the server sends it too; B again ends that."""
    async with visited(browser) as visit:
        await visit.go_live("?prompt=invert&transition_s=0&mirror=0")
        await visit.until_colour(ground("invert"))
        await visit.page.keyboard.press("b")
        assert await visit.page.evaluate("document.body.hasAttribute('data-bypass')")
        await visit.until_colour(GROUND)
        await visit.until_text("#hud-state", "Camera")
        await visit.page.click("#bypass")
        await visit.until_colour(ground("invert"))
        visit.assert_clean()


async def test_wipe_views_and_mirror(browser: Browser) -> None:
    """The wipe follows mouse and keyboard; W goes through the views; M mirrors both pictures."""
    async with visited(browser) as visit:
        page = visit.page
        await visit.go_live("?prompt=invert&mirror=0")
        picture = await (await page.wait_for_selector("#stage .picture")).bounding_box()
        assert picture is not None
        middle_y = picture["y"] + picture["height"] / 2

        async def colours() -> list[tuple[int, ...]]:
            """Of the screen, at a quarter and at three quarters of the picture."""
            shot = decode_png(await page.screenshot())
            xs = (picture["x"] + picture["width"] * part for part in (0.25, 0.75))
            return [tuple(shot[int(middle_y) + 90, int(x)]) for x in xs]

        def near(seen: tuple[int, ...], wanted: tuple[int, int, int]) -> bool:
            return bool(np.abs(np.array(seen) - wanted).max() < 24)

        handle = await (await page.wait_for_selector("#wipe")).bounding_box()
        assert handle is not None
        await page.mouse.move(handle["x"] + handle["width"] / 2, middle_y)
        await page.mouse.down()
        await page.mouse.move(picture["x"] + picture["width"] / 2, middle_y, steps=4)
        await page.mouse.up()
        assert abs(float(await page.get_attribute("#wipe", "aria-valuenow") or 0) - 50) <= 1
        left, right = await colours()
        assert near(left, GROUND)
        assert near(right, ground("invert"))
        await page.keyboard.press("End")
        assert near((await colours())[1], GROUND)
        await page.keyboard.press("Home")
        assert near((await colours())[0], ground("invert"))
        await page.keyboard.press("w")
        assert await page.evaluate("document.body.dataset.view") == "beside"
        left, right = await colours()
        assert near(left, GROUND)
        assert near(right, ground("invert"))
        await page.keyboard.press("w")
        assert await page.evaluate("document.body.dataset.view") == "hidden"
        await page.keyboard.press("m")
        for video in VIDEOS.values():
            mirror = await page.evaluate(f"getComputedStyle({video}).transform")
            assert mirror == "matrix(-1, 0, 0, 1, 0, 0)"
        visit.assert_clean()


async def test_snapshot(browser: Browser) -> None:
    """S saves the picture on screen, at its own size, mirrored if the view is."""
    async with visited(browser) as visit:
        await visit.go_live("?prompt=invert&transition_s=0&mirror=1")
        await visit.until_colour(ground("invert"))
        async with visit.page.expect_download() as download:
            await visit.page.keyboard.press("s")
        saved = await download.value
        assert saved.suggested_filename.startswith("invert-")
        assert saved.suggested_filename.endswith(".png")
        picture = decode_png((await saved.path()).read_bytes())
        assert picture.shape == (HEIGHT, WIDTH, 3)
        assert np.abs(picture[HEIGHT * 7 // 10, WIDTH // 2] - ground("invert")).max() < 24
        # The number is written from the left; its free place, on the right, is mirrored.
        assert np.abs(picture[20, 20] - ground("invert")).max() < 24
        visit.assert_clean()


async def test_settings_survive_a_reload_and_travel(browser: Browser) -> None:
    """Settings are there again after a reload, in the link for others; the address wins."""
    async with visited(browser) as visit:
        page = visit.page
        await visit.go_live("?prompt=invert&transition_s=0")
        await page.click('label.style:has([value="grey"])')
        await visit.until_colour(ground("grey"))
        await page.focus("#stability")
        await page.keyboard.press("End")
        await page.keyboard.press("w")
        await page.wait_for_url(lambda url: {"view=beside", "stability=1"} <= {*url.split("&")})
        address = page.url
        assert "prompt=grey" in address
        await page.reload()
        assert await page.input_value("#prompt") == "grey"
        assert await page.input_value("#stability") == "1"
        await page.goto(visit.base)
        assert await page.input_value("#prompt") == "grey"
        assert await page.evaluate("document.body.dataset.view") == "beside"
        await visit.go_live("?prompt=swap&transition_s=0")
        await visit.until_colour(ground("swap"))
        assert await page.input_value("#stability") == "1"
        await page.evaluate("localStorage.clear()")
        await page.goto(address)
        assert await page.input_value("#stability") == "1"
        await page.goto(f"{visit.base}/?strength=7")
        assert "0 to 1" in await visit.text("#toast")
        visit.assert_clean()


async def test_thumbnails_show_the_own_camera(browser: Browser) -> None:
    """Each style's thumbnail is the person's own picture in that style."""
    async with visited(browser) as visit:
        await visit.go_live()
        for name in ("invert", "swap", "same"):
            await visit.page.wait_for_function(
                """([name, wanted]) => {
                    const image = document.querySelector(`[value="${name}"] ~ span img`);
                    if (!image?.complete || !image.naturalWidth) return false;
                    const ctx = new OffscreenCanvas(1, 1).getContext("2d");
                    const { naturalWidth: w, naturalHeight: h } = image;
                    ctx.drawImage(image, w / 2, h * 0.7, 4, 4, 0, 0, 1, 1);
                    const seen = ctx.getImageData(0, 0, 1, 1).data;
                    return wanted.every((level, i) => Math.abs(level - seen[i]) < 24);
                }""",
                arg=[name, list(ground(name))],
                polling=100,
            )
        visit.assert_clean()


async def test_source_changes_in_mid_session(browser: Browser) -> None:
    """Another source takes over in the same session; the picture goes on."""
    async with visited(browser) as visit:
        await visit.go_live("?prompt=same&transition_s=0")
        await visit.until_colour(GROUND)
        await visit.page.select_option("#source", "test")
        await visit.page.wait_for_function(
            "() => document.getElementById('live').video.videoWidth === 640", polling=50
        )
        assert await visit.page.evaluate("document.body.dataset.state") == "live"
        assert len(visit.offers) == 1
        visit.assert_clean()


async def test_stop_and_leaving_end_the_session(browser: Browser) -> None:
    """Stop ends the session on the server at once, and so does leaving the page."""
    async with serving(make_engine) as server, visiting(browser, server.base) as visit:

        async def until_all_ended(running: list[asyncio.Task[None]]) -> None:
            assert len(running) == 1
            _, pending = await asyncio.wait(running, timeout=3)
            assert not pending

        await visit.go_live()
        running = list(server.app_tasks().values())
        await visit.page.click("#start")
        await visit.until_state("closed")
        await until_all_ended(running)
        await visit.page.click("#start-camera")
        await visit.until_state("live")
        visit.assert_clean()
        running = list(server.app_tasks().values())
        await visit.page.goto("about:blank")
        await until_all_ended(running)


async def test_refused_camera(browser: Browser) -> None:
    """Without permission the page says what to do; the test picture goes live instead."""
    async with visited(browser, permissions=[]) as visit:
        await visit.open("?prompt=invert")
        await visit.page.click("#start")
        assert "not allowed" in await visit.text("#message-text")
        assert await visit.page.evaluate("document.body.dataset.state") == "idle"
        await visit.page.click("#message-action")
        await visit.until_state("live")
        assert await visit.page.is_hidden("#message")
        visit.assert_clean()


async def test_insecure_origin(browser: Browser) -> None:
    """Under an address that gets no camera, the page tells how to reach one that does."""
    addresses = aioice.ice.get_host_addresses(use_ipv4=True, use_ipv6=False)
    if not addresses:
        pytest.skip("this machine has no address other than loopback")
    runner = web.AppRunner(create_app(ServerConfig(), make_engine))
    await runner.setup()
    try:
        site = web.TCPSite(runner, addresses[0], 0)
        await site.start()
        port = runner.addresses[0][1]
        async with visiting(browser, f"http://{addresses[0]}:{port}") as visit:
            await visit.open()
            await visit.page.click("#start")
            sentence = await visit.text("#message-text")
            assert f"http://localhost:{port}" in sentence
            assert "HTTPS" in sentence
            visit.assert_clean()
    finally:
        await runner.cleanup()


WITHOUT_ADDRESS = """
const { prototype } = RTCPeerConnection;
const { get } = Object.getOwnPropertyDescriptor(prototype, "localDescription");
Object.defineProperty(prototype, "localDescription", { get() {
    const { type, sdp } = get.call(this);
    return { type, sdp: sdp.replace(/a=candidate:.*\\r\\n/g, "") };
} });
"""


async def test_no_network_address(browser: Browser) -> None:
    """A browser that has no address to offer says so, and how to get one."""
    async with visited(browser) as visit:
        await visit.page.add_init_script(WITHOUT_ADDRESS)
        await visit.open("?source=test&autostart=1")
        await visit.until_text("#message-text", "no network address")
        assert await visit.page.evaluate("document.body.dataset.state") == "reconnecting"
        assert "Try now" in await visit.text("#message-action")
        assert visit.offers == []


async def test_full_server(browser: Browser) -> None:
    """When the server is full the page says so, counts down, and goes live when there is room."""
    config = ServerConfig(max_sessions=1)
    async with (
        serving(make_engine, config) as server,
        visiting(browser, server.base) as first,
        visiting(browser, server.base) as second,
    ):
        await first.go_live()
        await second.open()
        await second.page.click("#start")
        await second.until_text("#message-text", "1 sessions are open already")
        assert "Try now (" in await second.text("#message-action")
        await first.page.click("#start")
        await first.until_state("closed")
        await second.page.click("#message-action")
        await second.until_state("live")
        assert await second.page.is_hidden("#message")


async def test_loading_model(browser: Browser) -> None:
    """While the model loads the page says so; then it goes on by itself."""
    loaded = threading.Event()

    def load() -> Engine:
        assert loaded.wait(30)
        return make_engine()

    async with serving(load, wait=False) as server, visiting(browser, server.base) as visit:
        try:
            await visit.open("?source=test&prompt=invert&transition_s=0")
            await visit.until_text("#message-text", "load")
            await visit.page.click("#start")
            await visit.until_state("connecting")
            await visit.until_text("#message-text", "load")
        finally:
            loaded.set()
        await visit.until_state("live")
        assert await visit.page.is_hidden("#message")
        await visit.page.wait_for_selector('[name="style"][value="grey"]', state="attached")


class HeldEngine(ColourEngine):
    """Stops in the next batch while the test holds it."""

    def __init__(self) -> None:
        super().__init__(SIZE)
        self.goes_on = threading.Event()
        self.goes_on.set()

    def translate(self, jobs: Sequence[Job]) -> list[np.ndarray]:
        assert self.goes_on.wait(60)
        return super().translate(jobs)


async def test_stalled_model(browser: Browser) -> None:
    """A picture that stands still is never left without a word."""
    engines: list[HeldEngine] = []

    def load() -> Engine:
        engines.append(HeldEngine())
        return engines[0]

    async with visited(browser, load) as visit:
        await visit.open("?source=test&autostart=1")
        await visit.until_state("live")
        engines[0].goes_on.clear()
        try:
            await visit.page.wait_for_selector('body[data-engine="stalled"]')
            assert await visit.text("#hud-state") == "Engine busy"
            assert "slower than a second" in await visit.text("#message-text")
        finally:
            engines[0].goes_on.set()
        await visit.page.wait_for_selector('body[data-engine="live"]')
        await visit.page.wait_for_selector("#message", state="hidden")
        visit.assert_clean()


SERVER = """
import asyncio, sys
from browsers import HEIGHT, WIDTH
from engines import ColourEngine
from pipeline.engines import Size
from stream import rtp
from stream.config import ServerConfig
from stream.server import serve

with rtp.installed():
    config = ServerConfig(port=int(sys.argv[1]))
    asyncio.run(serve(config, lambda: ColourEngine(Size(WIDTH, HEIGHT)), on_listening=print))
"""


@asynccontextmanager
async def running_server(port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """A server in a process of its own, which can be killed."""
    tests = Path(__file__).parent
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-u", "-c", SERVER, str(port),
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tests), str(tests.parent)))},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert (await asyncio.wait_for(process.stdout.readline(), 30)).startswith(b"http")
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()


async def test_server_dies_and_returns(browser: Browser) -> None:
    """When the server is killed the page says so; when it is back, so are picture and settings."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with visiting(browser, f"http://127.0.0.1:{port}") as visit:
        async with running_server(port) as process:
            await visit.go_live("?prompt=invert&transition_s=0")
            await visit.page.click('label.style:has([value="grey"])')
            await visit.page.focus("#strength")
            for _ in range(50):
                await visit.page.keyboard.press("ArrowLeft")
            await visit.until_colour(ground("grey", 0.5))
            visit.assert_clean()
            process.kill()
            await visit.until_state("reconnecting")
            assert "server" in (await visit.text("#message-text")).lower()
            await visit.until_text("#message-text", "does not answer")
            assert await visit.text("#hud-state") == "Reconnecting"
            # Meanwhile the camera itself is shown, and it moves.
            assert await visit.page.is_visible("#camera")
        async with running_server(port):
            await visit.until_state("live")
            await visit.until_colour(ground("grey", 0.5))
            assert await visit.page.is_hidden("#message")
            assert await visit.page.input_value("#prompt") == "grey"


async def test_phone(browser: Browser) -> None:
    """On a phone everything fits the width, and the picture stays in sight."""
    async with visited(
        browser, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True
    ) as visit:
        await visit.open("?view=beside")
        for state in ("idle", "live"):
            if state == "live":
                await visit.page.tap("#start")
                await visit.until_state("live")
            width = await visit.page.evaluate("document.documentElement.scrollWidth")
            assert width == 390, state
        await visit.page.locator("#seed").scroll_into_view_if_needed()
        box = await visit.page.locator("#stage").bounding_box()
        assert box is not None
        assert box["y"] >= 0
        for name in await visit.page.locator("button:visible").all():
            target = await name.bounding_box()
            assert target is not None
            assert min(target["width"], target["height"]) >= 32, await name.text_content()
        visit.assert_clean()


async def test_models_and_help(browser: Browser) -> None:
    """The model that runs is marked among all; ? lists the keys and Escape closes the list."""
    models = (
        ModelEntry("colours", "Plain colours", "Apache-2.0", 0.1, "running"),
        ModelEntry("sdxs-512", "SDXS 512", "openrail++", 1900, "missing", "needs a download"),
    )
    async with (
        serving(make_engine, models=models) as server,
        visiting(browser, server.base) as visit,
    ):
        await visit.open()
        await visit.page.click("#models-open")
        marked = await visit.text('#model-list [data-state="running"]')
        assert "Plain colours" in marked
        assert "Apache-2.0" in marked
        assert "needs a download" in await visit.text('#model-list [data-state="missing"]')
        await visit.page.keyboard.press("Escape")
        await visit.page.keyboard.press("?")
        assert "Next style" in await visit.text("#help")
        await visit.page.keyboard.press("Escape")
        assert await visit.page.is_hidden("#help")
        visit.assert_clean()


async def test_element_on_another_page(browser: Browser) -> None:
    """Two lines put the translation on a page of one's own, without the rest of this page."""
    html = """<!doctype html><script type="module" src="/sdxs-live-element.js"></script>
        <sdxs-live id="live" prompt="invert" transition_s="0" autostart></sdxs-live>"""
    async with visited(browser) as visit:
        await visit.page.route(
            "**/own", lambda route: route.fulfill(body=html, content_type="text/html")
        )
        await visit.page.goto(f"{visit.base}/own")
        await visit.page.wait_for_function(
            "() => document.getElementById('live').state === 'live'", polling=50
        )
        await visit.until_colour(ground("invert"))
        await visit.page.evaluate("document.getElementById('live').setAttribute('prompt', 'grey')")
        await visit.until_colour(ground("grey"))
        running = "document.getElementById('live')"
        refused = await visit.page.evaluate(
            f"{running}.set({{ strength: 3 }}).catch((error) => error.message)"
        )
        assert "0 to 1" in refused
