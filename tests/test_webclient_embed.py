"""The lines of docs/embed.md on a page of somebody else's origin, in a real Chromium."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from browsers import PAGE_DEADLINE_MS, READ_GROUND, camera_chromium, ground, make_engine
from peers import serving

from stream.config import ServerConfig

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("corrected")]

DOCS = (Path(__file__).parent.parent / "docs" / "embed.md").read_text()
MODULES = Path(__file__).parent.parent / "webclient"


def block(kind: str, number: int = 0) -> str:
    """Return the words of one block of code of the documentation."""
    return re.findall(rf"```{kind}\n(.*?)```", DOCS, re.DOTALL)[number]


async def test_three_lines_translate_on_a_page_elsewhere(tmp_path: Path) -> None:
    """The documented lines work as they stand on an origin that the server knows, and no other."""
    html = block("html")
    assert len(html.splitlines()) == 3
    pages: dict[str, str] = {}

    async def show(request: web.Request) -> web.Response:
        return web.Response(text=pages[request.path], content_type="text/html")

    app = web.Application()
    app.router.add_get("/{name}", show)
    async with TestServer(app) as elsewhere, camera_chromium(tmp_path) as browser:
        origin = str(elsewhere.make_url("")).rstrip("/")
        config = ServerConfig(origins=(origin,))
        async with serving(make_engine, config) as server, serving(make_engine) as stranger:
            # One of the test engine's styles in the place of the model's.
            lines = '<link rel="icon" href="data:,">' + html.replace("ink-wash", "invert")
            pages["/own"] = lines.replace("http://127.0.0.1:8080", server.base)
            pages["/closed"] = lines.replace("http://127.0.0.1:8080", stranger.base)
            context = await browser.new_context(permissions=["camera"])
            context.set_default_timeout(PAGE_DEADLINE_MS)
            page = await context.new_page()
            problems: list[str] = []
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda message: problems.append(message.text))
            await page.goto(f"{origin}/own")
            await page.click("button")
            await page.wait_for_function("() => live.state === 'live'", polling=50)
            wanted = list(ground("invert"))
            await page.wait_for_function(
                f"""() => {READ_GROUND}(live.video).every(
                    (level, i) => Math.abs(level - {wanted}[i]) < 24)""",
                polling=50,
            )
            refused = await page.evaluate("live.set({ strength: 3 }).catch((e) => e.message)")
            assert refused == "strength must be from 0 to 1 (got 3)"
            png = "live.snapshot().then((blob) => [blob.type, blob.size])"
            kind, size = await page.evaluate(png)
            assert (kind, size > 100) == ("image/png", True)
            versions = f"""import('{server.base}/sdxs-live-element.js').then((element) =>
                import('{server.base}/sdxs-live.js').then((live) => [
                    element.VERSION, live.VERSION, live.SdxsLive.VERSION,
                    element.SdxsLive === live.SdxsLive,
                ]))"""
            assert await page.evaluate(versions) == [1, 1, 1, True]
            session = server.sessions.camera(await page.evaluate("live.session"))
            await page.evaluate("live.remove()")
            async with asyncio.timeout(PAGE_DEADLINE_MS / 1000):
                await session.broadcast.ended()
            assert not problems

            await page.goto(f"{origin}/closed")
            await page.wait_for_function("() => document.readyState === 'complete'", polling=50)
            assert await page.evaluate("customElements.get('sdxs-live')") is None
            assert any("CORS" in problem for problem in problems)
            assert len(stranger.sessions) == 0


def test_what_is_documented_is_there_and_the_other_way_round() -> None:
    """Attributes, events and members of the documentation and of the element are the same."""
    source = (MODULES / "sdxs-live-element.js").read_text()
    element, _, _ = DOCS.partition("## `SdxsLive`, without")
    rows = re.findall(r"^\| (`.*?) \|", element, re.MULTILINE)
    names = {name for row in rows for name in re.findall(r"`(?:await )?(\w+)[`(]", row)}
    controls = {"prompt", "strength", "stability", "seed", "transition_s", "region"}
    attributes = {"source", "autostart", "mirrored", "name", "server", "token"} | controls
    used = set(re.findall(r"(?:has|get)Attribute\('(\w+)'\)", source))
    assert used | controls | {"bypass", "freeze", "mirrored"} == attributes | {"bypass", "freeze"}
    members = set(re.findall(r"^  (?:async |get )?(\w+)\(.*\{$", source, re.MULTILINE))
    members -= {"constructor", "connectedCallback", "disconnectedCallback"}
    members -= {"attributeChangedCallback", "substitute"}
    # The delay's meter is the page's own; what it uses is not promised.
    events = set(re.findall(r"#emit\('(\w+)'", source))
    (listed,) = re.findall(r"const EVENTS = \[(.*?)\]", source)
    events |= set(re.findall(r"'(\w+)'", listed))
    assert names == attributes | {"bypass", "freeze"} | members | {"video"} | events
