"""The page of a server that others reach: https, a token, ICE servers, and the end of a quota."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from browsers import camera_chromium, ground, make_engine, visiting
from offers import obs
from peers import serving

from stream import rtp
from stream.config import ServerConfig
from stream.controls import Controls
from stream.ice_servers import IceServer
from stream.listening import bind
from stream.routes import ENGINE, SESSIONS
from stream.self_signed import LOOPBACK, find_or_make
from stream.server import create_app
from stream.tls import Tls, TlsSite, load_context
from stream.tokens import Token

pytestmark = pytest.mark.browser
TOKEN = "the-operators-own-token"
SECRET = "north"
NOTE_CONFIGURATIONS = """
    window.configurations = [];
    const set = RTCPeerConnection.prototype.setConfiguration;
    RTCPeerConnection.prototype.setConfiguration = function (configuration) {
        window.configurations.push(configuration.iceServers);
        return set.call(this, configuration);
    };
"""


@asynccontextmanager
async def secure_server(
    folder: Path, config: ServerConfig
) -> AsyncIterator[tuple[web.Application, str]]:
    """Serve over https with a certificate of our own; yields the name and port, too."""
    path = find_or_make(folder, ("localhost",), LOOPBACK)
    app = create_app(config, make_engine)
    runner = web.AppRunner(app, shutdown_timeout=1)
    with bind(config) as sock, rtp.installed():
        try:
            await runner.setup()
            await TlsSite(runner, sock, load_context(path, path)).start()
            await app[ENGINE].loaded()
            yield app, f"localhost:{sock.getsockname()[1]}"
        finally:
            await runner.cleanup()


async def test_phone_comes_by_its_code(tmp_path: Path) -> None:
    """Typed without a scheme or scanned, the address leads to a live translated picture by https.

    The token goes from the address into every request and is kept; credentials for the TURN
    server come with each session; the session is ended when the page is left; before a full
    server the page waits in line.
    """
    config = ServerConfig(
        port=0,
        token=TOKEN,
        tls=Tls("self-signed"),
        ice_servers=(IceServer("stun:127.0.0.1:9"), IceServer("turn:127.0.0.1:9")),
        turn_secret=SECRET,
        max_sessions=1,
    )
    async with (
        secure_server(tmp_path, config) as (app, base),
        camera_chromium(tmp_path) as browser,
        visiting(browser, f"https://{base}", ignore_https_errors=True) as visit,
    ):
        await visit.page.add_init_script(NOTE_CONFIGURATIONS)
        # As Chromium does with an address that somebody has typed.
        await visit.page.goto(f"http://{base}/?prompt=swap#{TOKEN}")
        assert visit.page.url == f"https://{base}/?prompt=swap"
        visit.complaints.clear()  # of the visit by http
        await visit.page.click("#start")
        await visit.until_state("live")
        await visit.until_colour(ground("swap"))
        (servers, *_) = await visit.page.evaluate("window.configurations")
        assert servers[0] == {"urls": "stun:127.0.0.1:9"}
        assert servers[1]["urls"] == "turn:127.0.0.1:9"
        assert servers[1]["username"].partition(":")[0].isdecimal()
        assert servers[1]["credential"]
        # Kept, so that the address may be opened again without it.
        await visit.page.goto(f"https://{base}/")
        assert len(app[SESSIONS]) == 0
        visit.assert_clean()
        # Full for now: the line asks for the token, too.
        other, _ = await app[SESSIONS].open_camera(obs(), Controls(), sends_back=False)
        await visit.page.click("#start")
        await visit.until_state("waiting")
        await app[SESSIONS].end(other)
        await visit.until_state("live")


async def test_token_is_asked_for_and_minutes_end(tmp_path: Path) -> None:
    """Without the token the page asks for it; when its minutes are over it says so, and stops."""
    ann = Token("ann", "ann-" + "a" * 16, minutes=5 / 60)
    async with (
        serving(make_engine, ServerConfig(tokens=(ann,))) as server,
        camera_chromium(tmp_path) as browser,
        visiting(browser, server.base) as visit,
    ):
        visit.page.on("dialog", lambda dialog: dialog.accept(ann.value))
        await visit.open()
        await visit.until_text("#message-text", "This server asks for a token")
        await visit.page.click("#message-action")
        await visit.until_state("live")
        await visit.until_text("#message-text", 'minutes of the token "ann" are used up')
        await visit.until_state("failed")
        assert len(server.sessions) == 0
        assert len(visit.offers) == 1
