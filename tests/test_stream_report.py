"""The line of figures in the log."""

from __future__ import annotations

import asyncio
import logging
import re

import pytest
from engines import ColourEngine, SlowEngine
from peers import flat, serving
from test_stream_session import ORANGE

from stream.config import ServerConfig
from stream.report import STAGES, Report
from stream.routes import METRICS

pytestmark = pytest.mark.usefixtures("corrected")

FIGURE = r"(\d+(?:\.\d+)?)"


async def test_line_sums_the_sessions_up() -> None:
    """Sessions, rates, drops, the way and each stage stand in the line, with what they are."""
    async with serving(lambda: SlowEngine(0.06)) as server:
        report = Report(server.sessions, server.app[METRICS], lambda: "all is well")
        assert "way not known" in report.take_line()
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        await server.play(peer.location.rpartition("/")[2])
        await peer.until_frames(30)
        line = report.take_line()
    assert line.startswith("sessions 1, viewers 1; ")
    assert line.endswith("; all is well")
    rates = re.search(rf"{FIGURE} fps in, {FIGURE} out", line)
    assert rates is not None, line
    assert 5 < float(rates[1]) < 45
    assert float(rates[2]) > 3
    dropped = re.search(rf"dropped {FIGURE} in, {FIGURE} out", line)
    assert dropped is not None, line
    assert float(dropped[1]) > 0
    way = re.search(rf"way {FIGURE} ms median, {FIGURE} ms p95", line)
    assert way is not None, line
    assert 60 <= float(way[1]) <= float(way[2])
    for stage in STAGES:
        assert re.search(rf"{stage} {FIGURE}", line), (stage, line)
    translate = re.search(rf"translate {FIGURE}", line)
    assert translate is not None
    assert float(translate[1]) >= 60


async def test_line_begins_anew() -> None:
    """What one line told the next does not tell again."""
    async with serving(ColourEngine) as server:
        report = Report(server.sessions, server.app[METRICS], str)
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        await peer.until_frames(10)
        assert " 0.0 fps in" not in report.take_line()
        await server.sessions.end(server.session(peer))
        report.take_line()
        assert report.take_line().startswith(
            "sessions 0, viewers 0; 0.0 fps in, 0.0 out; dropped 0"
        )


async def test_log_has_a_line_only_while_somebody_is_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An empty server says nothing; with a session a line comes as often as it was asked for."""
    caplog.set_level(logging.INFO, "stream.report")
    lines = lambda: [r.getMessage() for r in caplog.records if r.name == "stream.report"]  # noqa: E731
    async with serving(ColourEngine, ServerConfig(log_every_s=1)) as server:
        tasks = {task.get_name() for task in asyncio.all_tasks()}
        assert {"report", "adaptation"} <= tasks
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        assert lines() == []
        await peer.until(lambda: len(lines()) == 2)
        assert "delay target 120 ms, step 0 of" in lines()[0]
    assert not {"report", "adaptation"} & {task.get_name() for task in asyncio.all_tasks()}


async def test_every_stage_of_a_frame_is_exported() -> None:
    """/metrics has a histogram of each stage, from the last packet in to the last packet out."""
    step_s = 0.06
    async with serving(lambda: SlowEngine(step_s)) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        await peer.until_frames(20)
        read = server.app[METRICS].registry.get_sample_value
        for stage in STAGES:
            labels = {"stage": stage}
            count = read("stream_stage_seconds_count", labels) or 0
            assert count >= 15, stage
            assert (read("stream_stage_seconds_sum", labels) or 0) > 0, stage
        ways = read("stream_way_seconds_count") or 0
        assert ways >= 15
        assert (read("stream_way_seconds_sum") or 0) / ways > step_s
        assert (read("stream_frame_age_seconds_count") or 0) >= ways
        async with server.http.get(server.base + "/metrics") as response:
            text = await response.text()
    for stage in STAGES:
        assert f'stream_stage_seconds_bucket{{le="0.05",stage="{stage}"}}' in text
