"""A long session, measured: does its delay stay what it was, and the memory too?

The real server runs in this process with the model, as it is served; a real Chromium sends it
the numbered pictures of :mod:`stream.glass` and reads them again from its screen.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from aiohttp import web

from pipeline.engines import Size
from stream import glass, rtp
from stream.config import ServerConfig
from stream.errors import ConfigRefused
from stream.renderer import EngineFactory, ModelFactory
from stream.report import Report
from stream.routes import ENGINE, METRICS, SESSIONS
from stream.server import ADAPTATION

CASE = glass.Case("VP8", Size(640, 480), is_stock=False)
SHORTEST_S, LONGEST_S = 15.0, 1800.0
WINDOW_S = 60.0
"""What is compared: the first minute and the last; a third of a run that is shorter than three."""
SETTLING_S = 3.0
"""The beginning of a connection does not count."""
SAMPLE_EVERY_S = 1.0
FEWEST_PICTURES = 10


@dataclass(frozen=True, slots=True)
class Delays:
    """From camera to screen, in one long session."""

    window_s: float
    frames: int
    """Shown and read, after the connection has settled."""
    fps: float
    """Of the whole time."""
    median_first_ms: float
    """Of the first window."""
    median_last_ms: float
    """Of the last ``window_s``."""
    ratio: float
    """The last by the first."""
    p95_ms: float
    """Of the whole time."""
    medians_ms: list[float | None]
    """Of each window, one after the other; None: nothing was shown."""


async def run(
    engine_factory: EngineFactory,
    make_engine: ModelFactory | None,
    seconds: float,
    *,
    is_size_fixed: bool = False,
    browser: str | None = None,
) -> dict[str, Any]:
    """Measure one session and print a line a window; the last line is one JSON object.

    Args:
        engine_factory: builds the model.
        make_engine: builds it at another size, for the delay target.
        seconds: how long.
        is_size_fixed: the model keeps its size.
        browser: path of a Chromium; None: the first on the path.

    Returns:
        What the last line holds.

    Raises:
        ConfigRefused: ``seconds`` is out of range, or there is no browser or no model.
    """
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise ConfigRefused(
            f"--soak takes {SHORTEST_S:g} to {LONGEST_S:g} seconds (got {seconds:g})"
        )
    browser = browser or glass.find_browser()
    config = ServerConfig(port=0, is_size_fixed=is_size_fixed, log_every_s=0)
    window_s = min(WINDOW_S, seconds / 3)
    rss_mb: list[float] = []
    async with glass.serve(config, engine_factory, make_engine) as (app, url):
        with rtp.installed(config.corrections, config.max_bitrate_bps):
            watching = asyncio.create_task(_watch_memory(app, window_s, rss_mb), name="memory")
            try:
                seen = await glass.watch(app, url, CASE, seconds, browser, bypass=False)
            finally:
                watching.cancel()
                await asyncio.wait([watching])
        info = app[ENGINE].status.info
        steps = app[ADAPTATION].steps_taken
    report = {
        "bench": "soak",
        "cpus": os.cpu_count(),
        "codec": CASE.codec,
        "camera": str(CASE.size),
        "seconds": seconds,
        **asdict(to_delays(seen, seconds, window_s)),
        **to_memory(rss_mb, window_s),
        "model_size": str(info.size) if info is not None else "",
        "steps": steps,
    }
    print(json.dumps(report))
    return report


def to_delays(seen: dict[str, Any], seconds: float, window_s: float) -> Delays:
    """Cut what the page saw into windows.

    Args:
        seen: the page's ``agesMs`` and ``atMs``, in the order of the pictures.
        seconds: how long it looked.
        window_s: of one window; what is left over at the end belongs to none but the last.

    Raises:
        ConfigRefused: there are too few pictures in the first window or the last.
    """
    rows = [
        (at_ms / 1000, age_ms)
        for at_ms, age_ms in zip(seen["atMs"], seen["agesMs"], strict=True)
        if at_ms / 1000 >= SETTLING_S
    ]
    windows: list[list[float]] = [[] for _ in range(int(seconds // window_s))]
    for at_s, age_ms in rows:
        windows[min(int(at_s // window_s), len(windows) - 1)].append(age_ms)
    last = [age_ms for at_s, age_ms in rows if at_s >= rows[-1][0] - window_s] if rows else []
    if len(windows[0]) < FEWEST_PICTURES or len(last) < FEWEST_PICTURES:
        raise ConfigRefused(f"the browser showed {len(rows)} pictures in {seconds:g} s: too few")
    ages_ms = [age_ms for _, age_ms in rows]
    first_ms, last_ms = median(windows[0]), median(last)
    return Delays(
        window_s=window_s,
        frames=len(rows),
        fps=round((len(rows) - 1) / (rows[-1][0] - rows[0][0]), 1),
        median_first_ms=round(first_ms, 1),
        median_last_ms=round(last_ms, 1),
        ratio=round(last_ms / first_ms, 3),
        p95_ms=round(quantiles(ages_ms, n=20, method="inclusive")[-1], 1),
        medians_ms=[round(median(ages), 1) if ages else None for ages in windows],
    )


def to_memory(rss_mb: Sequence[float], window_s: float) -> dict[str, float]:
    """Compare resident memory after the first window with that at the end.

    Args:
        rss_mb: a sample each SAMPLE_EVERY_S, one or more.
        window_s: of the first window.
    """
    first_mb = rss_mb[min(int(window_s / SAMPLE_EVERY_S), len(rss_mb) - 1)]
    return {
        "rss_first_mb": round(first_mb, 1),
        "rss_last_mb": round(rss_mb[-1], 1),
        "rss_growth_mb": round(rss_mb[-1] - first_mb, 1),
        "rss_largest_mb": round(max(rss_mb), 1),
    }


async def _watch_memory(app: web.Application, window_s: float, rss_mb: list[float]) -> None:
    """Sample from the first session on until cancelled; print the figures once a window."""
    is_open = asyncio.Event()
    app[SESSIONS].on_change.append(is_open.set)
    await is_open.wait()  # a busy machine takes long to start a browser
    report = Report(app[SESSIONS], app[METRICS], app[ADAPTATION].__str__)
    started_s = time.perf_counter()
    told = 0
    while True:
        rss_mb.append(read_rss_mb())
        passed_s = time.perf_counter() - started_s
        if passed_s >= (told + 1) * window_s:
            told += 1
            print(f"{passed_s:5.0f} s, {rss_mb[-1]:.0f} MB: {report.take_line()}", flush=True)
        await asyncio.sleep(SAMPLE_EVERY_S)


def read_rss_mb() -> float:
    """Return how much memory of this process is resident; where nobody says, the largest so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest / (2**20 if sys.platform == "darwin" else 2**10)
    return pages * resource.getpagesize() / 2**20
