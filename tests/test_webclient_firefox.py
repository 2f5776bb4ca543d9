"""The page, in a real Firefox, before a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from browsers import make_engine
from firefox import Firefox, firefox
from peers import serving

from stream.signaling import check_offer

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("corrected")]

SEA = (44, 74, 107)
"""Where the test picture has its ground."""
CLICK = "(id) => document.getElementById(id).click()"
UNTIL_STATE = """(wanted) => new Promise((resolve) => {
    const look = () => document.body.dataset.state === wanted && resolve(wanted);
    new MutationObserver(look).observe(document.body, { attributes: true });
    look();
})"""
WATCH = """async (count) => {
    const live = document.getElementById('live').video;
    const camera = document.getElementById('camera');
    const ctx = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    const colour = (video) => {
        ctx.drawImage(video, video.videoWidth / 2, video.videoHeight * 0.7, 4, 4, 0, 0, 1, 1);
        return [...ctx.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const shown = [];
    while (shown.length < count) {
        const { presentedFrames } = await new Promise((resolve) =>
            live.requestVideoFrameCallback((_, metadata) => resolve(metadata)));
        shown.push({
            number: presentedFrames, live: colour(live), camera: colour(camera),
        });
    }
    return shown;
}"""


@pytest.fixture
async def browser() -> AsyncIterator[Firefox]:
    """A Firefox with a fresh profile; fails if its pages complained."""
    async with firefox() as running:
        yield running
    assert not running.complaints


def assert_advances(shown: list[dict[str, Any]]) -> None:
    """Fail if a frame was shown that is not later than the one before."""
    numbers = [frame["number"] for frame in shown]
    assert all(before < after for before, after in pairwise(numbers)), numbers


async def test_firefox_shows_its_camera_translated(browser: Firefox) -> None:
    """The page goes live; its frames advance, and are the camera's with colours inverted."""
    async with serving(make_engine) as server:
        tab = await browser.open(f"{server.base}/?prompt=invert&transition_s=0")
        await tab.evaluate(CLICK, "start")
        assert await tab.evaluate(UNTIL_STATE, "live") == "live"
        shown = await tab.evaluate(WATCH, 60)
        await tab.close()
    assert_advances(shown)
    live = np.array([frame["live"] for frame in shown])
    camera = np.array([frame["camera"] for frame in shown])
    # Its camera's colour wanders, further than what is on the way: each frame was some earlier
    # camera's picture.
    assert len(np.unique(live, axis=0)) > 5
    apart = np.abs(live[:, None] - (255 - camera[None])).max(axis=2)
    assert max(apart[at, : at + 1].min() for at in range(20, len(live))) <= 12
    assert np.abs(live - camera).max(axis=1).min() > 40


async def test_firefox_connects_from_behind_local_names(
    browser: Firefox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a camera it gives names that end in .local for addresses; it plays all the same."""
    offers: list[str] = []

    def check(body: bytes, *rest: Any, **options: Any) -> str:
        offers.append(body.decode())
        return check_offer(body, *rest, **options)

    monkeypatch.setattr("stream.resources.check_offer", check)
    async with serving(make_engine) as server:
        tab = await browser.open(f"{server.base}/?prompt=invert&transition_s=0")
        await tab.evaluate(CLICK, "start-test")
        assert await tab.evaluate(UNTIL_STATE, "live") == "live"
        shown = await tab.evaluate(WATCH, 15)
        await tab.close()
    candidates = [line for line in offers[0].split("\r\n") if line.startswith("a=candidate:")]
    assert candidates
    assert all(".local " in line for line in candidates), candidates
    assert_advances(shown)
    assert np.abs(np.array(shown[-1]["live"]) - (255 - np.array(SEA))).max() <= 60
