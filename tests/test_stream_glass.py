import json
import os
from dataclasses import replace
from typing import Any

import pytest

from pipeline.engines import Size
from stream import glass
from stream.config import ServerConfig
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


def test_a_page_that_saw_nothing_is_an_error() -> None:
    """Too few frames are told, not turned into a number."""
    with pytest.raises(ConfigRefused, match="showed 1 frames"):
        glass._to_measurement(CASE, {**RESULT, "agesMs": [1.0]}, seconds=2.0)


@pytest.mark.browser
async def test_what_goes_wrong_in_the_page_is_told(browser: str) -> None:
    """The page's own error is an error here."""
    case = replace(CASE, codec="AV2")
    async with glass.serve(ServerConfig(port=0), None) as (app, url):
        with pytest.raises(ConfigRefused, match="failed: "):
            await glass.watch(app, url, case, 1.0, browser, bypass=True)
