import json
import os
from dataclasses import replace
from typing import Any

import pytest

from pipeline.engines import Size
from stream import glass
from stream.errors import ConfigRefused
from stream.glass import Case, find_browser, run


@pytest.fixture
def browser() -> str:
    try:
        return find_browser()
    except ConfigRefused as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


@pytest.mark.browser
@pytest.mark.slow
async def test_ours_is_faster_than_stock(browser: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A real Chromium sees its picture again sooner, and at its full size."""
    report = await run(sizes=[Size(640, 480)], codecs=["VP8"], seconds=4.0, browser=browser)
    lines = capsys.readouterr().out.strip().split("\n")
    assert json.loads(lines[-1]) == report
    assert "VP8" in lines[1]
    assert "640x480" in lines[1]
    stock, ours = report["rows"]
    assert (stock["server"], ours["server"]) == ("stock", "ours")
    assert min(stock["frames"], ours["frames"]) > 40
    # 0.2 on a quiet machine; the command prints it.
    assert report["ratios"]["VP8 640x480"] < 0.9
    assert ours["sent_size"] == "640x480"


def test_without_a_browser_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a Chromium is told which names were looked for."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigRefused, match="chromium"):
        find_browser()


RESULT: dict[str, Any] = {
    "agesMs": [99.0, 98.0, *([20.0] * 20), 40.0],
    "rateHz": 29.9,
    "firstFrameMs": 321.0,
    "inbound": {"bytesReceived": 250_000, "keyFramesDecoded": 2},
    "outbound": {"frameWidth": 640, "frameHeight": 360},
}
CASE = Case("VP8", Size(1280, 720), is_stock=False)


def test_the_beginning_does_not_count() -> None:
    """The first third of the frames shows how a connection begins, not how it runs."""
    measurement = glass._to_measurement(CASE, RESULT, seconds=2.0)
    assert measurement.median_ms == 20.0
    assert 20.0 < measurement.p95_ms <= 40.0
    assert measurement.rate_hz == 29.9
    assert measurement.bitrate_kbps == 1000
    assert measurement.to_json()["sent_size"] == "640x360"
    assert replace(measurement, case=replace(CASE, is_stock=True)).to_json()["server"] == "stock"


@pytest.mark.parametrize(
    ("result", "reason"),
    [({"error": "no camera"}, "no camera"), ({**RESULT, "agesMs": [1.0]}, "showed 1 frames")],
)
def test_a_page_that_measured_nothing_is_an_error(result: dict[str, Any], reason: str) -> None:
    """What went wrong in the page is told, not turned into a number."""
    with pytest.raises(ConfigRefused, match=reason):
        glass._to_measurement(CASE, result, seconds=2.0)
