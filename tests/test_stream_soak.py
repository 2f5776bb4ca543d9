"""A long session, made short."""

from __future__ import annotations

import json
import os

import pytest
from engines import ColourEngine

from pipeline.config import TINY_PRESET
from pipeline.engines import Size
from stream.errors import ConfigRefused
from stream.glass import find_browser
from stream.soak import read_rss_mb, run, to_delays, to_memory

SIZE = TINY_PRESET.default_size


@pytest.fixture
def browser() -> str:
    try:
        return find_browser()
    except ConfigRefused as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


@pytest.mark.browser
@pytest.mark.timeout(120)
async def test_session_is_measured_from_its_beginning_to_its_end(
    browser: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real Chromium's session of 15 s gives every figure; delay and memory stay what they are."""
    report = await run(
        lambda: ColourEngine(SIZE),
        lambda _, size: ColourEngine(size or SIZE),
        15.0,
        is_size_fixed=True,
        browser=browser,
    )
    lines = capsys.readouterr().out.strip().split("\n")
    assert json.loads(lines[-1]) == report
    # The page counts its 15 s from the connection on: two windows of 5 s are over before it
    # leaves, and a third may be a moment later.
    assert len(lines) >= 3
    assert all("sessions 1," in line and "MB" in line for line in lines[:2]), lines
    assert report["frames"] > 60
    assert report["fps"] > 5
    assert 0 < report["median_first_ms"] < 1000
    # 1.00 on a quiet machine; the ten minutes of the command are what counts.
    assert 0.2 < report["ratio"] < 5
    assert len(report["medians_ms"]) == 3
    assert 20 < report["rss_first_mb"] <= report["rss_largest_mb"]
    assert abs(report["rss_growth_mb"]) < 100
    assert (report["model_size"], report["bench"]) == (str(SIZE), "soak")


def test_first_window_and_last_are_compared() -> None:
    """The connection's beginning is left out; a delay that doubles is a ratio of two."""
    at_ms = [100.0 * index for index in range(1800)]
    ages_ms = [500.0 if at < 3000 else 40.0 if at < 90_000 else 80.0 for at in at_ms]
    delays = to_delays({"atMs": at_ms, "agesMs": ages_ms}, 180.0, 60.0)
    assert (delays.median_first_ms, delays.median_last_ms, delays.ratio) == (40.0, 80.0, 2.0)
    assert delays.medians_ms[0] == 40.0
    assert delays.medians_ms[2] == 80.0
    assert delays.fps == 10.0
    assert delays.frames == 1770


def test_last_window_is_the_end_not_a_rest() -> None:
    """The last minute of a run of no whole minutes is as long as the first."""
    at_ms = [100.0 * index for index in range(1500)]
    ages_ms = [40.0 if at < 90_000 else 80.0 for at in at_ms]
    delays = to_delays({"atMs": at_ms, "agesMs": ages_ms}, 150.0, 60.0)
    assert delays.median_last_ms == 80.0
    assert len(delays.medians_ms) == 2


def test_memory_after_the_first_window_is_compared_with_the_end() -> None:
    """What is loaded at the start is no growth; what comes later is."""
    memory = to_memory([100.0, 300.0, *([400.0] * 60), 410.0], 60.0)
    assert memory == {
        "rss_first_mb": 400.0,
        "rss_last_mb": 410.0,
        "rss_growth_mb": 10.0,
        "rss_largest_mb": 410.0,
    }
    assert 10 < read_rss_mb() < 10_000


def test_picture_that_stood_still_is_an_error() -> None:
    """Nothing shown is no delay of nothing."""
    with pytest.raises(ConfigRefused, match="showed 0 pictures"):
        to_delays({"atMs": [], "agesMs": []}, 60.0, 20.0)


@pytest.mark.parametrize("seconds", [1.0, 3600.0, float("nan")])
async def test_length_out_of_range_is_named(seconds: float) -> None:
    """A run too short to compare, or longer than the page counts, is refused."""
    with pytest.raises(ConfigRefused, match="--soak takes 15 to 1800 seconds"):
        await run(lambda: ColourEngine(Size(64, 48)), None, seconds)
