"""What goes wrong, and what the page says and does then, in a real Chromium."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aioice.ice
import numpy as np
import pytest
from aiohttp import web
from browsers import SIZE, ground, make_engine, visited, visiting
from engines import ColourEngine, SlowEngine
from peers import serving
from playwright.async_api import Browser

from pipeline.config import TINY_PRESET
from pipeline.engines import Engine, Job, Size
from stream.config import ServerConfig
from stream.server import create_app

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("corrected"),
]


async def test_prompt_of_a_link_that_is_refused(browser: Browser) -> None:
    """A link with unknown words says so, and the picture comes in the model's own style."""
    async with visited(browser) as visit:
        await visit.open("?prompt=marmalade&strength=1")
        assert "marmalade" in await visit.text("#prompt-error")
        await visit.page.click("#start")
        await visit.until_state("live")
        await visit.until_colour(ground("invert"))


async def test_each_bad_value_of_a_link_is_told_beside_it(browser: Browser) -> None:
    """Every wrong value is told where it can be mended, and mending one takes its word back."""
    async with visited(browser) as visit:
        await visit.open("?seed=1.5&strength=7&view=behind&wipe=no")
        assert "seed must be a whole number" in await visit.text("#seed-error")
        assert "strength must be a number from 0 to 1" in await visit.text("#strength-error")
        told = await visit.text("#toast")
        assert "view must be one of" in told
        assert "wipe must be a number" in told
        await visit.page.fill("#seed", "7")
        await visit.page.wait_for_selector("#seed-error", state="hidden")
        assert await visit.page.is_visible("#strength-error")
        await visit.page.fill("#seed", "-7")
        assert '(got "-7")' in await visit.text("#seed-error")
        visit.assert_clean()


async def test_source_that_ends(browser: Browser) -> None:
    """An unplugged camera ends the session, with a word; a file that is no video gets one too."""
    async with visited(browser) as visit:
        await visit.go_live()
        track = "document.getElementById('live').source.track"
        await visit.page.evaluate(f"{track}.dispatchEvent(new Event('ended'))")
        await visit.until_state("closed")
        await visit.until_text("#message-text", "has ended")
        await visit.page.set_input_files("#file", Path(__file__))
        await visit.until_text("#message-text", "cannot play")
        visit.assert_clean()


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
            assert "--tls self-signed" in sentence
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
        # What counts down is not read out: the sentence is.
        assert await visit.page.locator("[role=alert]:not([hidden])").count() >= 1
        assert await visit.page.locator("[role=alert] #message-action").count() == 0
        assert visit.offers == []


async def test_full_server(browser: Browser) -> None:
    """Before a full server pages wait in line: places move, and the next comes in by itself."""
    config = ServerConfig(max_sessions=1)
    async with (
        serving(make_engine, config) as server,
        visiting(browser, server.base) as first,
        visiting(browser, server.base) as second,
        visiting(browser, server.base) as third,
    ):
        await first.go_live()
        for visit, words in ((second, "You are next"), (third, "You are number 2 of 2 in line")):
            await visit.open()
            await visit.page.click("#start")
            await visit.until_state("waiting")
            await visit.until_text("#message-text", words)
        assert "in about 10 minutes" in await third.text("#message-text")
        assert await third.text("#hud-state") == "In line"
        # The camera is to be seen meanwhile.
        assert await third.page.is_visible("#camera")
        # Who leaves loses the place, and who was behind moves up.
        await second.page.click("#message-action")
        await second.until_state("closed")
        await third.until_text("#message-text", "You are next")
        await second.page.click("#start")
        await second.until_text("#message-text", "You are number 2 of 2 in line")
        await first.page.click("#start")
        await first.until_state("closed")
        await third.until_state("live")
        assert await third.page.is_hidden("#message")
        await third.until_colour(ground("invert"))
        await second.until_text("#message-text", "You are next")
        # A page that is closed leaves too, whether it is live or waits.
        await third.page.close()
        await second.until_state("live")
        assert len(server.sessions.waiting) == 0


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


AGES = "() => Number(document.getElementById('hud-delay').textContent) > 1000"


async def test_stalled_model(browser: Browser) -> None:
    """A picture that stands still is never left without a word, and its age is seen to grow."""
    engines: list[HeldEngine] = []

    def load() -> Engine:
        engines.append(HeldEngine())
        return engines[0]

    async with visited(browser, load) as visit:
        await visit.open("?source=test&autostart=1")
        await visit.until_state("live")
        ageing = asyncio.create_task(visit.page.wait_for_function(AGES, polling=50))
        engines[0].goes_on.clear()
        try:
            await visit.page.wait_for_selector('body[data-engine="stalled"]')
            assert await visit.text("#hud-state") == "Model stalled"
            assert "slower than a second" in await visit.text("#message-text")
            await visit.until_text("#message-text", "you see the camera itself")
            await ageing
        finally:
            ageing.cancel()
            engines[0].goes_on.set()
        await visit.page.wait_for_selector('body[data-engine="live"]')
        await visit.page.wait_for_selector("#message", state="hidden")
        visit.assert_clean()


async def test_model_that_works_smaller_is_told(browser: Browser) -> None:
    """Above the delay target the page says at which size the model works, and why."""

    def make(model: str = TINY_PRESET.name, size: Size | None = None) -> Engine:
        engine = SlowEngine(0.15, size or TINY_PRESET.default_size)
        engine.model = model
        return engine

    async with (
        serving(make, ServerConfig(target_ms=100), make_engine=make) as server,
        visiting(browser, server.base) as visit,
    ):
        await visit.open("?source=test&autostart=1")
        await visit.until_state("live")
        assert not await visit.page.is_visible("#hud-effort")
        await visit.until_text("#hud-effort", "at 256×192 to keep up")
        badge = visit.page.locator("#hud-effort")
        assert "to keep the delay below 100 ms" in str(await badge.get_attribute("title"))
        visit.assert_clean()


SERVER = """
import asyncio, sys
from browsers import HEIGHT, WIDTH
from engines import ColourEngine, SlowEngine
from pipeline.engines import Size
from stream import rtp
from stream.config import ServerConfig
from stream.server import serve

async def tell(address, status):
    print(address, flush=True)

with rtp.installed():
    config = ServerConfig(port=int(sys.argv[1]))
    asyncio.run(serve(config, lambda: ColourEngine(Size(WIDTH, HEIGHT)), on_listening=tell))
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
            await visit.until_text("#hud-state", "No picture")
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


class Prude:
    """A safety checker that finds everything unfit."""

    def is_unfit(self, image: np.ndarray) -> bool:
        return True

    def close(self) -> None:
        pass


async def test_blurred_picture_is_explained(browser: Browser) -> None:
    """Where the server's safety checker lets nothing be shown, the page says why it is blurred."""
    async with (
        serving(make_engine, load_checker=Prude) as server,
        visiting(browser, server.base) as visit,
    ):
        await visit.open("?source=test&autostart=1")
        await visit.until_state("live")
        await visit.until_text("#message-text", "finds the picture unfit to be shown")
        assert await visit.text("#hud-state") == "Live"
        visit.assert_clean()
