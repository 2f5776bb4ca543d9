"""Cameras that are muted, busy or one at a time, in a real Chromium."""

from __future__ import annotations

import asyncio

import pytest
from browsers import PAGE_DEADLINE_MS, ground, make_engine, visited, visiting
from peers import serving
from playwright.async_api import Browser, Route

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("corrected"),
]


TRACK = "document.getElementById('live').source.track"

# A second camera, which is either in use by another program, or a phone's, where each camera
# is free only while no other is open.
SECOND_CAMERA = """
const { mediaDevices } = navigator;
const enumerate = mediaDevices.enumerateDevices.bind(mediaDevices);
const open = mediaDevices.getUserMedia.bind(mediaDevices);
const opened = [];
window.isPhone = false;
window.isBroken = true;
mediaDevices.enumerateDevices = async () => [
    ...await enumerate(), { kind: "videoinput", deviceId: "second", label: "Second" },
];
mediaDevices.getUserMedia = async ({ video }) => {
    const isSecond = video.deviceId?.exact === "second";
    const isTaken = isPhone && opened.some(({ readyState }) => readyState === "live");
    if (isTaken || (isSecond && isBroken)) throw new DOMException("", "NotReadableError");
    const stream = await open({ video: true });
    const [track] = stream.getVideoTracks();
    const settings = track.getSettings.bind(track);
    track.getSettings = () => ({ ...settings(), facingMode: isPhone ? "user" : undefined });
    opened.push(track);
    return stream;
};
"""


async def test_muted_camera(browser: Browser) -> None:
    """While the camera is muted the page says just that; the message goes when it is back."""
    async with visited(browser) as visit:
        await visit.go_live("?prompt=invert&transition_s=0")
        await visit.page.evaluate(
            f"""() => new Promise((resolve) => {{
                window.said = [];
                const text = document.getElementById('message-text');
                new MutationObserver(() => said.push(text.textContent))
                    .observe(text, {{ childList: true }});
                Object.defineProperty({TRACK}, 'muted', {{ configurable: true, value: true }});
                {TRACK}.enabled = false;
                {TRACK}.dispatchEvent(new Event('mute'));
                let count = 0;
                const live = document.getElementById('live');
                live.addEventListener('stats', ({{ detail }}) => {{
                    detail.quiet_ms = 9999; // as if no frame came back; the page reads it next
                    count += 1;
                    if (count === 4) resolve();
                }}, true);
            }})"""
        )
        assert "privacy switch" in await visit.text("#message-text")
        assert all("privacy switch" in s for s in await visit.page.evaluate("said"))
        await visit.page.evaluate(
            f"""() => {{
                delete {TRACK}.muted;
                {TRACK}.enabled = true;
                {TRACK}.dispatchEvent(new Event('unmute'));
            }}"""
        )
        await visit.page.wait_for_selector("#message", state="hidden")


async def test_busy_camera_leaves_the_old_one_live(browser: Browser) -> None:
    """When the other camera is in use, the page says so and the old one goes on."""
    async with visited(browser) as visit:
        await visit.page.add_init_script(SECOND_CAMERA)
        await visit.go_live("?prompt=invert&transition_s=0")
        before = await visit.page.evaluate(f"{TRACK}.id")
        await visit.page.select_option("#source", "camera:second")
        await visit.until_text("#message-text", "in use by another program")
        assert await visit.page.evaluate(f"[{TRACK}.id, {TRACK}.readyState]") == [before, "live"]
        assert len({str(frame["bits"]) for frame in await visit.watch(1)}) >= 5
        assert await visit.page.evaluate("document.body.dataset.state") == "live"
        assert await visit.page.input_value("#source") != "camera:second"
        assert len(visit.offers) == 1
        visit.assert_clean()


@pytest.mark.parametrize("is_broken", [False, True])
async def test_phone_opens_one_camera_at_a_time(browser: Browser, is_broken: bool) -> None:
    """A phone's camera makes way for its other one, and comes back if that one fails."""
    async with visited(browser) as visit:
        await visit.page.add_init_script(SECOND_CAMERA)
        await visit.open("?prompt=invert&transition_s=0")
        await visit.page.evaluate(f"isPhone = true; isBroken = {str(is_broken).lower()};")
        await visit.page.click("#start")
        await visit.until_state("live")
        before = await visit.page.evaluate(f"{TRACK}.id")
        await visit.page.select_option("#source", "camera:second")
        await visit.page.wait_for_function(f"() => {TRACK}.id !== '{before}'", polling=50)
        if is_broken:
            await visit.until_text("#message-text", "in use by another program")
        assert await visit.page.evaluate(f"{TRACK}.readyState") == "live"
        await visit.until_colour(ground("invert"))
        assert len({str(frame["bits"]) for frame in await visit.watch(1)}) >= 5
        assert len(visit.offers) == 1
        visit.assert_clean()


async def test_stop_before_the_answer(browser: Browser) -> None:
    """A session whose answer comes after the stop is deleted, so that its place is free."""
    held = asyncio.Event()
    asked = asyncio.Event()

    async def hold(route: Route) -> None:
        if route.request.method != "POST":
            await route.continue_()
            return
        response = await route.fetch()
        asked.set()
        await held.wait()
        await route.fulfill(response=response)

    async with serving(make_engine) as server, visiting(browser, server.base) as visit:
        await visit.page.route("**/sessions?*", hold)
        await visit.open("?prompt=invert&source=test")
        await visit.page.click("#start")
        await asyncio.wait_for(asked.wait(), PAGE_DEADLINE_MS / 1000)
        (running,) = server.app_tasks().values()
        await visit.page.click("#start")
        await visit.until_state("closed")
        async with visit.page.expect_request(lambda request: request.method == "DELETE"):
            held.set()
        _, pending = await asyncio.wait([running], timeout=5)
        assert not pending
        visit.assert_clean()


async def test_failed_question_for_the_model_is_asked_again(browser: Browser) -> None:
    """When the server does not answer, the page says so, asks again, and shows the styles."""
    failures = 0

    async def fail_once(route: Route) -> None:
        nonlocal failures
        failures += 1
        await (route.abort() if failures == 1 else route.continue_())

    async with visited(browser) as visit:
        await visit.page.route("**/readyz", fail_once)
        await visit.open("?prompt=invert")
        await visit.until_text("#message-text", "does not answer")
        await visit.page.wait_for_selector('[name="style"][value="grey"]', state="attached")
        assert await visit.page.is_hidden("#message")
        assert failures >= 2
