"""What a streamer's hands do in the page, in a real Chromium, before a real server."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from browsers import GROUND, SIZE, ground, make_engine, visiting
from peers import serving
from playwright.async_api import Browser, Page
from test_stream_stall import HangingEngine

from stream.config import ServerConfig

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("corrected"),
]


LOOK = ("prompt", "strength", "stability", "seed", "transition_s")
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
        await visit.until_text("#hud-delay", "–")  # it gets older, but nothing is late
        await page.click("#details-open")
        await page.click("#measure-delay")
        await visit.until_text("#measured", "The picture is frozen")
        await page.click("#details-open")
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
        assert len(visit.complaints) <= 2, visit.complaints
        assert all("404" in complaint for complaint in visit.complaints)


async def test_presets_links_and_playlists(browser: Browser, tmp_path: Path) -> None:
    """Looks are saved, chosen by key, sent as a link that carries all, and played in order."""
    path = tmp_path / "presets.toml"
    clipboard = {"permissions": ["camera", "clipboard-read", "clipboard-write"]}
    async with (
        serving(make_engine, ServerConfig(presets=path)) as server,
        visiting(browser, server.base, **clipboard) as visit,
        visiting(browser, server.base, **clipboard) as other,
    ):
        page = visit.page

        async def save(name: str) -> None:
            await page.click("#presets-open")
            await page.fill("#preset-name", name)
            await page.keyboard.press("Enter")
            await page.wait_for_selector(f'#preset-list [data-name="{name}"]')
            await page.keyboard.press("Escape")

        async def values(of: Page) -> list[str]:
            return [await of.input_value(f"#{each}") for each in LOOK]

        await visit.go_live("?name=studio&prompt=invert&transition_s=0&stability=0.25&mirror=0")
        await visit.until_colour(ground("invert"))
        await save("dark")
        await page.click('label.style:has([value="grey"])')
        await page.focus("#strength")
        await page.keyboard.press("ArrowLeft")
        await page.fill("#seed", "12")
        await visit.until_colour(ground("grey", 0.99))
        await save("night & day".replace("&", "-"))
        assert tomllib.loads(path.read_text())["presets"]["night - day"] == {
            "prompt": "grey",
            "strength": 0.99,
            "stability": 0.25,
            "seed": 12,
            "transition_s": 0.0,
        }
        # By key, on air, from a new page too; digits that are typed are typed.
        await page.focus("#mirror")
        await page.keyboard.press("1")
        await visit.until_colour(ground("invert"))
        assert await values(page) == ["invert", "1", "0.25", "0", "0"]
        await page.fill("#seed", "")
        await page.type("#seed", "2")
        await page.focus("#mirror")
        await page.keyboard.press("9")
        await visit.until_colour(ground("invert"))
        await page.keyboard.press("2")
        await visit.until_colour(ground("grey", 0.99))
        # A link carries everything, also what the other end has set otherwise.
        await other.open("?prompt=swap&strength=0.3&stability=0.9&seed=5&transition_s=3")
        await page.click("#presets-open")
        await page.click('[data-name="dark"] .link')
        await visit.until_text("#toast", "Link copied")
        link = await page.evaluate("navigator.clipboard.readText()")
        await other.page.goto(link)
        assert await values(other.page) == ["invert", "1", "0.25", "0", "0"]
        await page.keyboard.press("Escape")
        await page.keyboard.press("l")
        await page.wait_for_function(
            "(old) => navigator.clipboard.readText().then((text) => text !== old)", arg=link
        )
        await other.page.goto(await page.evaluate("navigator.clipboard.readText()"))
        assert await values(other.page) == await values(page)
        assert await values(page) == ["grey", "0.99", "0.25", "12", "0"]
        # A playlist, written and started here, runs on the server.
        await page.click("#presets-open")
        await page.fill("#playlist-steps", "dark 600\nnight - day")
        await page.fill("#playlist-name", "show")
        await page.keyboard.press("Enter")
        await visit.until_text("#presets-note", "such as “evening 30” (got “night - day”)")
        await page.fill("#playlist-steps", "dark 600\nnight - day 0.5")
        await page.focus("#playlist-name")
        await page.keyboard.press("Enter")
        await page.click('#playlist-list [data-name="show"] .play')
        await page.wait_for_selector('#playlist-list [data-state="running"]')
        await visit.until_text("#presets-open", "show 1/2")
        await visit.until_colour(ground("invert"))
        assert await page.input_value("#prompt") == "invert"
        # What a playlist needs stays; what nobody needs goes.
        await page.click('#preset-list [data-name="dark"] .delete')
        await visit.until_text("#presets-note", "needs this preset")
        await page.click('#playlist-list [data-name="show"] .play')
        await visit.until_text("#presets-open", "Presets")
        await page.click('#playlist-list [data-name="show"] .delete')
        await page.wait_for_selector('#playlist-list [data-name="show"]', state="detached")
        await page.click('#preset-list [data-name="dark"] .delete')
        await page.wait_for_selector('#preset-list [data-name="dark"]', state="detached")
        # A file that somebody has mistyped is told, and the rest of it is there.
        path.write_text(path.read_text() + "[presets.late]\nstrength = 7\n")
        await page.keyboard.press("Escape")
        await page.click("#presets-open")
        await visit.until_text("#presets-note", "preset 'late': strength must be from 0 to 1")
        await page.wait_for_selector('#preset-list [data-name="night - day"]')
        # Before the start, and without a word, it is the style that the shelf marks.
        await other.open("?prompt=")
        await other.page.wait_for_selector('[name="style"][value="invert"]:checked')
        await other.page.click("#presets-open")
        await other.page.fill("#preset-name", "plain")
        await other.page.keyboard.press("Enter")
        await other.page.wait_for_selector('#preset-list [data-name="plain"]')
        assert tomllib.loads(path.read_text())["presets"]["plain"]["prompt"] == "invert"
        refusals = [each for each in visit.complaints if "409" in each]
        assert visit.complaints == refusals[:1]
        other.assert_clean()
