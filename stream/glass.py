"""Glass to glass, measured: a real Chromium before stock aiortc's echo and before ours.

A page draws a number into its camera's picture and reads it again from the screen, so that
one clock stamps both ends. Both servers run in this process, in turn, in one run: what they
share, machine and browser, drops out of the ratio.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
)
from av import VideoFrame

from pipeline.engines import Engine, Size
from pipeline.errors import EngineError
from stream import rtp
from stream.config import ServerConfig
from stream.corrections import Corrections
from stream.errors import ConfigRefused
from stream.renderer import EngineFactory, ModelFactory
from stream.routes import ENGINE
from stream.server import create_app, keep_heap_frozen
from stream.signaling import check_offer

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")
SIZES = (Size(640, 480), Size(1280, 720))
CODECS = ("VP8", "H264")
FRAME_RATE_HZ = 30
SHORTEST_S, LONGEST_S = 1.0, 600.0
# Beside the measurement itself: the browser's start and the connection.
BROWSER_DEADLINE_S = 40.0
# The first frames show how a connection begins, not how it runs.
SETTLING_SHARE = 1 / 3

_RESULT = web.AppKey("result", asyncio.Queue)
_STOCK = web.AppKey("stock", list)


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement: what is sent, and to whom."""

    codec: str
    size: Size
    is_stock: bool


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the page saw."""

    case: Case
    frames: int
    """Shown, after the connection has settled."""
    median_ms: float
    p95_ms: float
    rate_hz: float
    """Frames shown a second."""
    first_frame_ms: float
    """From the page's start."""
    sent_size: Size
    """What the browser sends at the end; smaller than the camera if it fears congestion."""
    bitrate_kbps: int
    """Of the picture that comes back."""
    key_frames: int

    def to_json(self) -> dict[str, Any]:
        """Return it for the last line of the output."""
        return {
            "server": "stock" if self.case.is_stock else "ours",
            "codec": self.case.codec,
            "size": str(self.case.size),
            "median_ms": round(self.median_ms, 1),
            "p95_ms": round(self.p95_ms, 1),
            "rate_hz": round(self.rate_hz, 1),
            "frames": self.frames,
            "first_frame_ms": round(self.first_frame_ms),
            "sent_size": str(self.sent_size),
            "bitrate_kbps": self.bitrate_kbps,
            "key_frames": self.key_frames,
        }


async def run(
    engine_factory: EngineFactory | None = None,
    sizes: Sequence[Size] = SIZES,
    codecs: Sequence[str] = CODECS,
    seconds: float = 6.0,
    browser: str | None = None,
    corrections: Corrections | None = None,
) -> dict[str, Any]:
    """Measure every size and codec before both servers and print the table.

    Args:
        engine_factory: builds the model that translates; None: ``bypass``, the transport
            alone.
        sizes: of the camera.
        codecs: ``"VP8"``, ``"H264"``.
        seconds: of each measurement.
        browser: path of a Chromium; None: the first on the path.
        corrections: what ours has in force; None: all.

    Returns:
        What the last line of the output holds.

    Raises:
        ConfigRefused: ``seconds`` is out of range, there is no browser, or it measured nothing.
    """
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise ConfigRefused(
            f"--seconds takes {SHORTEST_S:g} to {LONGEST_S:g} for each case (got {seconds:g})"
        )
    browser = browser or find_browser()
    rows = []
    # The figures are those of one size: nothing may change it.
    config = ServerConfig(port=0, target_ms=0)
    async with serve(config, engine_factory) as (app, url):
        for codec in codecs:
            for size in sizes:
                pair = [
                    await _measure(
                        app,
                        url,
                        Case(codec, size, is_stock),
                        seconds,
                        browser,
                        bypass=engine_factory is None,
                        corrections=corrections,
                    )
                    for is_stock in (True, False)
                ]
                rows.append((pair[0], pair[1]))
                print(_row(*pair) if len(rows) > 1 else f"{_HEAD}\n{_row(*pair)}", flush=True)
    report = {
        "bench": "glass",
        "bypass": engine_factory is None,
        "cpus": os.cpu_count(),
        "rows": [measurement.to_json() for pair in rows for measurement in pair],
        "ratios": {
            f"{stock.case.codec} {stock.case.size}": round(ours.median_ms / stock.median_ms, 3)
            for stock, ours in rows
        },
    }
    print(json.dumps(report))
    return report


def find_browser() -> str:
    """Return the path of a Chromium.

    Raises:
        ConfigRefused: there is none.
    """
    for name in BROWSERS:
        path = shutil.which(name)
        if path is not None:
            return path
    raise ConfigRefused(f"this needs one of {', '.join(BROWSERS)} on the path; none is there")


_HEAD = (
    f"{'codec':6}{'size':11}{'stock: median':>14}{'p95':>7}{'ours: median':>15}{'p95':>7}"
    f"{'ratio':>8}   shown fps, first frame, sent size, kb/s back, key frames: stock | ours"
)


def _row(stock: Measurement, ours: Measurement) -> str:
    notes = " | ".join(
        f"{m.rate_hz:.1f} fps {m.first_frame_ms:.0f} ms {m.sent_size} "
        f"{m.bitrate_kbps} {m.key_frames}"
        for m in (stock, ours)
    )
    return (
        f"{stock.case.codec:6}{stock.case.size!s:11}{stock.median_ms:11.1f} ms{stock.p95_ms:7.1f}"
        f"{ours.median_ms:12.1f} ms{ours.p95_ms:7.1f}{ours.median_ms / stock.median_ms:8.2f}"
        f"   {notes}"
    )


@asynccontextmanager
async def serve(
    config: ServerConfig,
    engine_factory: EngineFactory | None,
    make_engine: ModelFactory | None = None,
) -> AsyncIterator[tuple[web.Application, str]]:
    """Run the real server, with the stock echo and a place for results beside it.

    Args:
        config: of the server; it takes any free port.
        engine_factory: builds the model; None: there is none.
        make_engine: builds it at another size.

    Returns:
        The application and its address.

    Raises:
        ConfigRefused: the model cannot be built.
    """
    app = create_app(config, engine_factory or _no_engine, make_engine=make_engine)
    keep_heap_frozen(app)
    app[_RESULT] = asyncio.Queue(1)
    app[_STOCK] = []
    app.add_routes([web.post("/glass/stock", _echo_stock), web.post("/glass/result", _take_result)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, config.host, 0)
        await site.start()
        status = await app[ENGINE].loaded()
        if engine_factory is not None and not status.is_ready:
            raise ConfigRefused(f"there is no model to measure: {status.detail}")
        host, port = runner.addresses[0][:2]
        yield app, f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def _no_engine() -> Engine:
    raise EngineError("the transport is measured without a model")


class _Echo(MediaStreamTrack):  # type: ignore[misc]  # aiortc is seen as untyped
    """The newest frame of a track, as the best of stock echoes does it."""

    kind = "video"

    def __init__(self, track: MediaStreamTrack) -> None:
        super().__init__()
        self._track = track

    async def recv(self) -> VideoFrame:
        frame: VideoFrame = await self._track.recv()
        waiting = self._track._queue
        while not waiting.empty():
            frame = waiting.get_nowait() or frame
        return frame


async def _echo_stock(request: web.Request) -> web.Response:
    offer = check_offer(await request.read(), request.headers.get("Content-Type", ""))
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    request.app[_STOCK].append(pc)
    pc.on("track", lambda track: pc.addTrack(_Echo(track)))
    await pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
    await pc.setLocalDescription(await pc.createAnswer())
    return web.Response(status=201, text=pc.localDescription.sdp, content_type="application/sdp")


async def _take_result(request: web.Request) -> web.Response:
    await request.app[_RESULT].put(await request.json())
    return web.Response()


async def _measure(
    app: web.Application,
    url: str,
    case: Case,
    seconds: float,
    browser: str,
    *,
    bypass: bool,
    corrections: Corrections | None,
) -> Measurement:
    in_force = Corrections.none() if case.is_stock else corrections
    with rtp.installed(in_force):
        result = await watch(app, url, case, seconds, browser, bypass=bypass)
    return _to_measurement(case, result, seconds)


async def watch(
    app: web.Application, url: str, case: Case, seconds: float, browser: str, *, bypass: bool
) -> dict[str, Any]:
    """Open the page in a new browser and return what it has seen.

    Raises:
        ConfigRefused: it has seen nothing, or says what went wrong.
    """
    # A model would paint over the number: the server carries it past.
    ours = f"/sessions?bypass={str(bypass).lower()}&marks=true"
    query = urlencode(
        {
            "endpoint": "/glass/stock" if case.is_stock else ours,
            "codec": case.codec,
            "width": case.size.width,
            "height": case.size.height,
            "rate": FRAME_RATE_HZ,
            "seconds": seconds,
        }
    )
    async with _open(browser, f"{url}/glass.html?{query}"):
        try:
            async with asyncio.timeout(seconds + BROWSER_DEADLINE_S):
                result: dict[str, Any] = await app[_RESULT].get()
        except TimeoutError:
            raise ConfigRefused(f"{browser} has measured nothing of {case}") from None
        for pc in app[_STOCK]:
            await pc.close()
        app[_STOCK].clear()
    if "error" in result:
        raise ConfigRefused(f"the page of {case} failed: {result['error']}")
    return result


@asynccontextmanager
async def _open(browser: str, url: str) -> AsyncIterator[None]:
    """Have a browser with a new profile show a page."""
    profile = tempfile.mkdtemp(prefix="glass-")
    arguments = [
        "--headless",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
        "--autoplay-policy=no-user-gesture-required",
        f"--user-data-dir={profile}",
    ]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # Chromium refuses root otherwise
    process = await asyncio.create_subprocess_exec(
        browser,
        *arguments,
        url,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()
        await asyncio.to_thread(shutil.rmtree, Path(profile), ignore_errors=True)


def _to_measurement(case: Case, result: dict[str, Any], seconds: float) -> Measurement:
    ages_ms = result["agesMs"]
    settled = ages_ms[int(len(ages_ms) * SETTLING_SHARE) :]
    if len(settled) < 2:
        raise ConfigRefused(f"the browser showed {len(ages_ms)} frames of {case}")
    inbound, outbound = result["inbound"], result["outbound"]
    return Measurement(
        case=case,
        frames=len(settled),
        median_ms=median(settled),
        p95_ms=quantiles(settled, n=20, method="inclusive")[-1],
        rate_hz=result["rateHz"],
        first_frame_ms=result["firstFrameMs"],
        sent_size=Size(outbound.get("frameWidth", 1), outbound.get("frameHeight", 1)),
        bitrate_kbps=round(inbound.get("bytesReceived", 0) * 8 / seconds / 1000),
        key_frames=inbound.get("keyFramesDecoded", 0),
    )
