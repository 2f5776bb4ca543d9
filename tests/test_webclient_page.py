"""The page, in a real Chromium, before a real server."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from browsers import (
    GROUND,
    HEIGHT,
    NUMBERS,
    VIDEOS,
    WIDTH,
    Visit,
    ground,
    make_engine,
    visited,
    visiting,
)
from clips import write_clip
from peers import serving
from playwright.async_api import Browser, FloatRect

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("corrected"),
]


SEA = (44, 74, 107)
"""Where the test picture has its ground."""
CLIP = (40, 108, 180)
"""The middle of what a clip's ground goes through."""


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


class Screen:
    """The pixels of the picture as a person sees them."""

    def __init__(self, visit: Visit, box: FloatRect) -> None:
        self.visit = visit
        self.box = box

    @classmethod
    async def of(cls, visit: Visit) -> Screen:
        box = await (await visit.page.wait_for_selector("#stage .picture")).bounding_box()
        assert box is not None
        return cls(visit, box)

    def at(self, part: float) -> tuple[float, float]:
        """Return the place at a part of the width, below the middle."""
        return (
            self.box["x"] + self.box["width"] * part,
            self.box["y"] + self.box["height"] * 0.7,
        )

    async def sees(self, left: tuple[int, int, int], right: tuple[int, int, int]) -> bool:
        """Tell whether a quarter and three quarters of the way have these colours."""
        shot = decode_png(await self.visit.page.screenshot())
        pixels = [shot[int(y), int(x)] for x, y in (self.at(0.25), self.at(0.75))]
        return bool(np.abs(np.array(pixels) - [left, right]).max() < 24)


async def test_wipe_follows_mouse_and_keyboard(browser: Browser) -> None:
    """Left of the wipe is the camera, right of it the translation, wherever it is put."""
    async with visited(browser) as visit:
        await visit.go_live("?prompt=invert&transition_s=0&wipe=10")
        await visit.until_colour(ground("invert"))
        screen = await Screen.of(visit)
        await visit.page.mouse.move(*screen.at(0.1))
        await visit.page.mouse.down()
        await visit.page.mouse.move(*screen.at(0.5), steps=4)
        await visit.page.mouse.up()
        assert abs(float(await visit.page.get_attribute("#wipe", "aria-valuenow") or 0) - 50) <= 1
        assert await screen.sees(GROUND, ground("invert"))
        await visit.page.keyboard.press("End")
        assert await screen.sees(GROUND, GROUND)
        await visit.page.keyboard.press("Home")
        assert await screen.sees(ground("invert"), ground("invert"))
        visit.assert_clean()


async def test_views_and_mirror(browser: Browser) -> None:
    """W puts the camera beside, then away; M mirrors both pictures."""
    async with visited(browser) as visit:
        await visit.go_live("?prompt=invert&transition_s=0&mirror=0")
        await visit.until_colour(ground("invert"))
        screen = await Screen.of(visit)
        await visit.page.keyboard.press("w")
        assert await visit.page.evaluate("document.body.dataset.view") == "beside"
        assert await screen.sees(GROUND, ground("invert"))
        await visit.page.keyboard.press("w")
        assert await visit.page.evaluate("document.body.dataset.view") == "hidden"
        assert await screen.sees(ground("invert"), ground("invert"))
        await visit.page.keyboard.press("m")
        for video in VIDEOS.values():
            mirror = await visit.page.evaluate(f"getComputedStyle({video}).transform")
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
        assert "0 to 1" in await visit.text("#strength-error")
        visit.assert_clean()


async def test_a_reload_goes_on_and_a_visit_waits(browser: Browser) -> None:
    """What was live is live again, with its source; after Stop, or anew, nothing is opened."""
    async with visited(browser) as visit:
        page = visit.page
        await visit.go_live("?prompt=invert&transition_s=0")
        await page.reload()
        await visit.until_state("live")
        await visit.until_colour(ground("invert"))
        await page.select_option("#source", "test")
        await page.wait_for_url(lambda url: "source=test" in url)
        await page.reload()
        await visit.until_state("live")
        assert await page.input_value("#source") == "test"
        goes_on = "import('/resume.js').then(({ isResumed }) => isResumed('test'))"
        assert await page.evaluate(goes_on)
        await page.goto(visit.base)
        assert not await page.evaluate(goes_on)
        assert await page.input_value("#source") == "test"
        await page.click("#start")
        await visit.until_state("live")
        await page.click("#start")
        await page.reload()
        assert not await page.evaluate(goes_on)
        await page.wait_for_selector("label.style")
        assert await page.get_attribute("body", "data-state") not in ("connecting", "live")
        assert len(visit.offers) == 4
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
        await visit.until_colour(SEA, tolerance=60)
        assert await visit.page.evaluate("document.body.dataset.state") == "live"
        assert len(visit.offers) == 1
        visit.assert_clean()


async def test_video_file(browser: Browser, tmp_path: Path) -> None:
    """A video file is a source too."""
    clip = tmp_path / "clip.webm"
    write_clip(clip, "libvpx", sound=None, size=(160, 120))
    async with visited(browser) as visit:
        await visit.open("?prompt=same&transition_s=0")
        await visit.page.set_input_files("#file", clip)
        await visit.until_state("live")
        await visit.until_colour(CLIP, tolerance=60)
        assert await visit.page.input_value("#source") == "file"
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


async def test_window_of_any_width(browser: Browser) -> None:
    """In a narrow window all buttons and all that is shown are in sight."""
    everything = """() => {
        for (const part of document.querySelectorAll('#hud-effort, #clip, #record')) {
            part.hidden = false;
        }
        document.getElementById('hud-size').textContent = '192×144, 1 of 2 frames';
        const width = innerWidth;
        const isOut = (box) => box.width > 0 && (box.left < 0 || box.right > width);
        const parts = '.bar, .hud, .deck, .panel, button, fieldset, label';
        const cut = [...document.querySelectorAll(parts)]
            .filter((part) => isOut(part.getBoundingClientRect()));
        return cut.map(({ outerHTML }) => outerHTML);
    }"""
    async with visited(browser) as visit:
        await visit.open()
        for width in (780, 900, 1024, 1101, 1280):
            await visit.page.set_viewport_size({"width": width, "height": 700})
            assert await visit.page.evaluate(everything) == [], width
            start = await visit.page.locator("#start").bounding_box()
            assert start is not None
            assert start["width"] >= 90, width  # it says what it does
        visit.assert_clean()


async def test_help(browser: Browser) -> None:
    """? lists the keys and Escape closes the list."""
    async with visited(browser) as visit:
        await visit.open()
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
