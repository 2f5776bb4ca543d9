"""The server's routes, refusals, start and stop."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import re
import signal
import socket
import threading
import time
import zlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager

import aiortc.rtcrtpsender
import cv2
import numpy as np
import pytest
from aiohttp import ClientSession, web
from engines import TRANSFORMS, ColourEngine, GatedEngine, transform
from peers import DEADLINE_S, Serving, flat, serving
from test_stream_signaling import make_offer

from pipeline.engines import Engine, Size
from pipeline.errors import CheckpointError
from stream import limits, signaling
from stream.config import ServerConfig
from stream.corrections import Corrections
from stream.errors import AddressRefused, ConfigRefused, RequestRefused
from stream.gathering import PortRange
from stream.listening import bind
from stream.models import ModelEntry
from stream.pictures import decode_picture
from stream.renderer import EngineFactory
from stream.routes import ENGINE
from stream.server import create_app, serve
from stream.status import EngineState, EngineStatus

COLOUR = (200, 120, 40)
SDP = {"Content-Type": "application/sdp"}
MODELS = (ModelEntry("colours", "Colours", "none", 0.1),)


@pytest.fixture
async def server() -> AsyncIterator[Serving]:
    config = ServerConfig(max_sessions=1)
    async with serving(lambda: ColourEngine(Size(64, 64)), config, models=MODELS) as serving_:
        yield serving_


def picture(size: tuple[int, int] = (160, 90), ending: str = ".png") -> bytes:
    image = np.full((size[1], size[0], 3), COLOUR[::-1], np.uint8)
    return bytes(cv2.imencode(ending, image)[1])


def bomb(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes that claims many pixels."""
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    chunk = (len(header) - 4).to_bytes(4, "big") + header + zlib.crc32(header).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + chunk


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """Put a PNG together."""
    parts = [
        len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")
        for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


HEADER = (b"IHDR", b"\0\0\0\x08\0\0\0\x08\x08\x02\0\0\0")  # 8x8 RGB
PIXELS = (b"IDAT", zlib.compress(b"\0" * 8 * 25))
FLOOD = zlib.compress(b"\0" * 150_000_000)


async def problem(response: object) -> dict[str, object]:
    """Check that a response is problem details and return them."""
    assert response.content_type == "application/problem+json"
    body = await response.json()
    assert body.keys() == {"type", "title", "status", "detail"}
    assert body["status"] == response.status
    return body


async def test_lists_and_states(server: Serving) -> None:
    """Styles, models, health and readiness are told as JSON."""
    expected = {
        "/api/styles": {
            "styles": [
                {"name": "invert", "synonyms": ["negative"]},
                {"name": "swap", "synonyms": []},
                {"name": "grey", "synonyms": ["gray"]},
                {"name": "same", "synonyms": []},
            ]
        },
        "/healthz": {"status": "ok"},
        "/readyz": {
            "status": "ready",
            "engine": {"name": "colour", "device": "test", "model": "colours", "size": "64x64"},
        },
    }
    for path, body in expected.items():
        async with server.http.get(server.base + path) as response:
            assert (response.status, await response.json()) == (200, body)


async def test_ready_tells_loading_and_failure() -> None:
    """While the model loads, and when it cannot be loaded, /readyz is 503 and says so."""
    gate = threading.Event()

    def load() -> ColourEngine:
        assert gate.wait(DEADLINE_S)
        raise CheckpointError("the weights are cut off")

    async with serving(load, wait=False) as server:
        async with server.http.get(server.base + "/readyz") as response:
            assert response.status == 503
            assert (await response.json())["status"] == "loading"
        gate.set()
        await server.engine.loaded()
        async with server.http.get(server.base + "/readyz") as response:
            assert response.status == 503
            assert await response.json() == {
                "status": "failed",
                "detail": "the weights are cut off",
            }


async def test_metrics_count_frames(server: Serving) -> None:
    """Prometheus sees sessions and frames."""
    peer = await server.connect(flat(COLOUR))
    await peer.until_frames(3)
    async with server.http.get(server.base + "/metrics") as response:
        text = await response.text()
    assert "stream_sessions 1.0" in text
    assert 'stream_stage_seconds_count{stage="translate"}' in text
    out = next(line for line in text.splitlines() if 'stream_frames_total{direction="out"}' in line)
    assert float(out.rpartition(" ")[2]) >= 3


@pytest.mark.parametrize(
    ("body", "headers", "query", "status"),
    [
        (b"hello", SDP, "", 400),
        (b"x" * 40_000, SDP, "", 413),
        (b"v=0\r\n", SDP, "", 422),
        (b"v=0\r\n", {"Content-Type": "text/plain"}, "", 415),
        (None, SDP, "?strength=2", 422),
        (None, SDP, "?prompt=cubism", 422),
        (None, SDP, "?speed=1", 422),
    ],
)
async def test_bad_offer_is_a_problem(
    server: Serving, body: bytes | None, headers: dict[str, str], query: str, status: int
) -> None:
    """A bad offer is answered with problem details and leaves no session."""
    if body is None:
        body = (await make_offer()).encode()
    url = f"{server.base}/sessions{query}"
    async with server.http.post(url, data=body, headers=headers) as response:
        assert response.status == status
        await problem(response)
    assert len(server.sessions) == 0


async def test_offer_that_aiortc_stumbles_over_leaves_no_session(
    server: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When aiortc fails on an offer and on closing it, the answer is 422 and the place is free."""
    monkeypatch.setattr(signaling, "_check_bundle", lambda *_: None)
    offer = (await make_offer()).replace("a=mid:0", "a=mid:9")
    for _ in range(2):
        async with server.http.post(f"{server.base}/sessions", data=offer, headers=SDP) as response:
            assert response.status == 422
            assert "cannot be answered" in str((await problem(response))["detail"])
        assert len(server.sessions) == 0
    assert "not closed cleanly" in caplog.text


async def test_body_without_a_length_is_cut_off(server: Serving) -> None:
    """A body that grows beyond the limit while it is read is refused."""

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"x" * 4096

    async with server.http.post(f"{server.base}/sessions", data=endless(), headers=SDP) as response:
        assert response.status == 413


async def test_body_that_never_ends_is_given_up(
    server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that does not come in time is answered 408."""
    monkeypatch.setattr(limits, "BODY_TIMEOUT_S", 0.05)
    is_over = asyncio.Event()

    async def trickle() -> AsyncIterator[bytes]:
        yield b"v=0"
        await is_over.wait()

    headers = {"Content-Type": "application/sdp"}
    async with server.http.post(
        server.base + "/sessions", data=trickle(), headers=headers
    ) as response:
        assert response.status == 408
        assert "within 0.05 s" in (await response.json(content_type=None))["detail"]
        is_over.set()


async def test_body_in_a_wrong_encoding_is_a_problem(server: Serving) -> None:
    """A body that is not what Content-Encoding says is answered 400."""
    headers = {"Content-Type": "application/sdp", "Content-Encoding": "gzip"}
    async with server.http.post(
        server.base + "/sessions", data=b"abcd", headers=headers
    ) as response:
        assert response.status == 400
        assert "cannot be read" in (await response.json(content_type=None))["detail"]


async def test_file_with_a_long_name_is_not_there(server: Serving) -> None:
    """A name longer than file systems take is answered 404."""
    async with server.http.get(f"{server.base}/{'a' * 300}.html") as response:
        assert response.status == 404


async def test_more_sessions_than_allowed_are_refused(server: Serving) -> None:
    """A full server says when to try again, and has room when someone has left."""
    peer = await server.connect(flat(COLOUR))
    offer = await make_offer()
    async with server.http.post(f"{server.base}/sessions", data=offer, headers=SDP) as response:
        assert response.status == 503
        assert 5 <= int(response.headers["Retry-After"]) <= 60
        assert (await response.json(content_type=None))["waiting"] == "/waiting"
    async with server.http.delete(server.base + peer.location) as response:
        assert response.status == 200
    await server.connect(flat(COLOUR))


async def test_trickled_candidates_are_taken(server: Serving) -> None:
    """Candidates are taken with 204; another ICE generation is refused."""
    peer = await server.connect(flat(COLOUR))
    headers = {"Content-Type": "application/trickle-ice-sdpfrag"}
    line = "a=candidate:1 1 udp 2130706431 192.0.2.77 50000 typ host\r\n"
    for body, status in (
        (f"a=mid:0\r\n{line}a=end-of-candidates\r\n", 204),
        (f"a=ice-ufrag:other\r\na=mid:0\r\n{line}", 422),
        ("a=candidate:1 1 udp\r\n", 400),
        ("a=mid:0\r\n" + line * 65, 400),
    ):
        async with server.http.patch(
            server.base + peer.location, data=body, headers=headers
        ) as response:
            assert response.status == status, body
    await peer.until_frames(3)


@pytest.mark.parametrize("ending", [".png", ".jpg"])
async def test_preview_translates_a_picture(server: Serving, ending: str) -> None:
    """A picture comes back as a JPEG in the style asked for, its aspect kept."""
    url = f"{server.base}/api/preview?prompt=swap&strength=1"
    headers = {"Content-Type": "image/png" if ending == ".png" else "image/jpeg"}
    async with server.http.post(url, data=picture(ending=ending), headers=headers) as response:
        assert (response.status, response.content_type) == (200, "image/jpeg")
        image = cv2.imdecode(np.frombuffer(await response.read(), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image.shape == (36, 64, 3)
    wanted = transform(np.full((1, 1, 3), COLOUR, np.uint8), TRANSFORMS["swap"], 1.0)[0, 0]
    assert np.abs(image.astype(int) - wanted.astype(int)).max() <= 8


def test_picture_is_not_inflated_beyond_its_pixels() -> None:
    """What else lies in a PNG is not inflated, neither in the picture nor beside it."""
    with pytest.raises(RequestRefused, match="more than its 8x8 pixels"):
        decode_picture(png(HEADER, (b"IDAT", FLOOD), (b"IEND", b"")))
    words = (b"zTXt", b"Comment\0\0" + FLOOD)
    started_s = time.process_time()
    zlib.decompress(FLOOD)
    inflating_s = time.process_time() - started_s
    started_s = time.process_time()
    frame = decode_picture(png(HEADER, words, PIXELS, (b"IEND", b"")))
    assert (frame.width, frame.height) == (8, 8)
    assert time.process_time() - started_s < inflating_s / 2


@asynccontextmanager
async def served_as_always(
    factory: EngineFactory,
) -> AsyncIterator[tuple[web.Application, str]]:
    """Run a server whose handlers go on when their client leaves, unlike a test server's."""
    app = create_app(ServerConfig(), factory)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        await app[ENGINE].loaded()
        yield app, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_preview_that_nobody_waits_for_is_not_rendered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of two pictures that wait, the one whose asker has gone costs the model nothing."""
    engines: list[GatedEngine] = []

    def load() -> GatedEngine:
        engines.append(GatedEngine(Size(64, 64)))
        return engines[0]

    async with served_as_always(load) as (app, base), ClientSession() as http:

        async def ask(http: ClientSession) -> int:
            url, headers = f"{base}/api/preview", {"Content-Type": "image/png"}
            async with http.post(url, data=picture(), headers=headers) as response:
                return response.status

        turns, asked = app[ENGINE]._turns, asyncio.Queue[None]()
        ask_patiently = turns.ask_patiently

        def note(call: Callable[[Engine], object]) -> Future[object]:
            asked.put_nowait(None)
            return ask_patiently(call)

        monkeypatch.setattr(turns, "ask_patiently", note)
        first = asyncio.create_task(ask(http))
        await asked.get()
        assert await asyncio.to_thread(engines[0].entered.acquire, timeout=DEADLINE_S)
        abandoned = asyncio.create_task(ask(http))
        await asked.get()
        last = asyncio.create_task(ask(http))
        await asked.get()
        abandoned.cancel()
        await asyncio.wait([abandoned])
        # The server learns of it before it answers anything that is asked later.
        async with http.get(f"{base}/healthz"):
            pass
        engines[0].gate.release(3)
        assert await asyncio.gather(first, last) == [200, 200]
        assert len(engines[0].batches) == 2


@pytest.mark.parametrize(
    ("body", "content_type", "query", "status"),
    [
        (b"nonsense", "image/png", "", 415),
        (picture(), "text/plain", "", 415),
        (picture()[:12], "image/png", "", 422),
        (picture()[:40], "image/png", "", 422),
        (picture(ending=".jpg")[:30], "image/jpeg", "", 422),
        (b"\xff\xd8\xff\xff\xff", "image/jpeg", "", 422),
        (b"\xff\xd8\x00", "image/jpeg", "", 422),
        (picture((1, 1)), "image/png", "", 422),
        (bomb(60_000, 60_000), "image/png", "", 413),
        (b"x" * 300_000, "image/png", "", 413),
        (png(HEADER, (b"IDAT", FLOOD), (b"IEND", b"")), "image/png", "", 422),
        (picture(ending=".jpg") + b"\xff\xda" * 65, "image/jpeg", "", 422),
        (picture(), "image/png", "?prompt=cubism", 422),
        (picture(), "image/png", "?strength=x", 422),
    ],
)
async def test_bad_preview_is_a_problem(
    server: Serving, body: bytes, content_type: str, query: str, status: int
) -> None:
    """What is not a picture we can translate is answered with the reason."""
    url = f"{server.base}/api/preview{query}"
    async with server.http.post(
        url, data=io.BytesIO(body), headers={"Content-Type": content_type}
    ) as response:
        assert response.status == status
        await problem(response)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/../pyproject.toml", 404),
        ("GET", "/__init__.py", 404),
        ("GET", "/missing.js", 404),
        ("PUT", "/sessions", 405),
        ("GET", "/sessions/nobody/controls", 404),
        ("PATCH", "/sessions/nobody/controls", 404),
        ("PATCH", "/sessions/nobody", 404),
        ("DELETE", "/sessions/nobody", 404),
    ],
)
async def test_what_is_not_there_is_a_problem(
    server: Serving, method: str, path: str, status: int
) -> None:
    """Unknown paths, methods and sessions are answered with problem details."""
    async with server.http.request(method, server.base + path) as response:
        assert response.status == status
        await problem(response)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "127.0.0.1:8080"}, 200),
        ({"Host": "localhost:8080"}, 200),
        ({"Host": "[::1]:8080"}, 200),
        ({"Host": "192.168.1.7"}, 200),
        ({"Host": "LocalHost.:8080"}, 200),
        ({"Host": "[fd00::7]:8080"}, 200),
        ({"Host": "[::ffff:127.0.0.1]"}, 200),
        ({"Host": ""}, 421),
        ({"Host": "evil.example@127.0.0.1"}, 421),
        ({"Host": "127.0.0.1#evil.example"}, 421),
        ({"Host": "evil.example/127.0.0.1"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Host": "127.1"}, 421),
        ({"Host": "0x7f000001"}, 421),
        ({"Host": "2130706433"}, 421),
        ({"Host": "127.0.0.1:x"}, 421),
        ({"Host": "localhost:123456"}, 421),
        ({"Host": "evil.example"}, 421),
        ({"Host": "localhost.evil.example:8080"}, 421),
        ({"Host": "[::1"}, 421),
        ({"Host": "[x]"}, 421),
    ],
)
async def test_foreign_host_is_refused(
    server: Serving, headers: dict[str, str], status: int
) -> None:
    """A name that could have been rebound to this machine is not answered."""
    async with server.http.get(server.base + "/healthz", headers=headers) as response:
        assert response.status == status


async def test_host_is_required(server: Serving) -> None:
    """A request without a Host is refused, and nobody's resolver is asked for this machine's."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.server.port)
    writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert b" 421 " in await reader.readline()
    writer.close()


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("studio.example", "https://studio.example", 404),
        ("Studio.Example:443", "https://studio.example", 404),
        ("studio.example.", "https://studio.example.", 404),
        ("studio.example:8443", "https://studio.example:8443", 404),
        ("127.0.0.1:8080", "http://127.0.0.1:8080", 404),
        ("[fd00::7]:8080", "http://[fd00::7]:8080", 404),
        ("studio.example", "https://page.example", 404),
        ("studio.example", "https://page.example:444", 403),
        ("studio.example", "http://page.example", 403),
        ("studio.example", "https://evil-page.example", 403),
        ("studio.example", "https://studio.example:8443", 403),
        ("studio.example:8443", "https://studio.example", 403),
        ("127.0.0.1:8080", "http://127.0.0.1:9090", 403),
        ("127.0.0.1:8080", "http://localhost:8080", 403),
        ("studio.example", "https://studio.example.evil.example", 403),
        ("studio.example", "ftp://studio.example", 403),
        ("studio.example", "https://studio.example:x", 403),
    ],
)
async def test_own_pages_are_told_from_foreign_ones(host: str, origin: str, status: int) -> None:
    """A page is our own where scheme's port, name and port are those that were asked."""
    config = ServerConfig(names=("studio.example",), origins=("https://page.example",))
    async with serving(ColourEngine, config) as server:
        headers = {"Host": host, "Origin": origin}
        url = f"{server.base}/sessions/nobody"
        async with server.http.delete(url, headers=headers) as response:
            assert response.status == status


async def test_foreign_page_may_not_change_anything(server: Serving) -> None:
    """A change asked for by a page of another origin is refused; our own page's is not."""
    url = f"{server.base}/sessions/nobody"
    for origin, status in (
        ("http://evil.example", 403),
        ("null", 403),
        ("http://[", 403),
        (server.base, 404),
    ):
        async with server.http.delete(url, headers={"Origin": origin}) as response:
            assert response.status == status


async def test_every_answer_has_security_headers(server: Serving) -> None:
    """Pages, data and errors alike carry the Content-Security-Policy."""
    for path in ("/healthz", "/nothing", "/api/styles"):
        async with server.http.get(server.base + path) as response:
            policy = response.headers["Content-Security-Policy"]
            assert "default-src 'self'" in policy
            assert "unsafe" not in policy
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Cache-Control"] == "no-cache"


class Caller:
    """Is called back by serve."""

    def __init__(self) -> None:
        self.told: asyncio.Future[tuple[str, EngineStatus]] = (
            asyncio.get_running_loop().create_future()
        )

    async def __call__(self, url: str, status: EngineStatus) -> None:
        self.told.set_result((url, status))


@pytest.mark.parametrize("has_handlers", [True, False])
async def test_serve_stops_on_a_signal(has_handlers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve calls back with its address, answers there, and ends cleanly on SIGTERM.

    So it does where the loop knows no signals, as on Windows.
    """
    loop = asyncio.get_running_loop()
    if not has_handlers:

        def refuse(*_: object) -> None:
            raise NotImplementedError

        monkeypatch.setattr(loop, "add_signal_handler", refuse)
    before = signal.getsignal(signal.SIGTERM)
    encoders = aiortc.rtcrtpsender.get_encoder
    caller = Caller()
    config = ServerConfig(port=0, max_bitrate_bps=900_000)
    running = asyncio.create_task(serve(config, ColourEngine, on_listening=caller))
    async with asyncio.timeout(DEADLINE_S):
        url, status = await caller.told
        assert status.is_ready
        assert aiortc.rtcrtpsender.get_encoder.keywords["cap_bps"] == 900_000
        async with ClientSession() as http, http.get(url + "/healthz") as response:
            assert json.loads(await response.text()) == {"status": "ok"}
        # What is loaded by now is nothing for the garbage collector to walk over.
        assert gc.get_freeze_count() > 10_000
        os.kill(os.getpid(), signal.SIGTERM)
        await running
    assert signal.getsignal(signal.SIGTERM) == before
    assert aiortc.rtcrtpsender.get_encoder is encoders
    assert gc.get_freeze_count() == 0
    assert "engine" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))


async def test_who_asks_for_nothing_leaves_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is silent, stops in a request or has had its answer is closed in time."""
    monkeypatch.setattr("stream.server.IDLE_CONNECTION_S", 0.5)
    caller = Caller()
    running = asyncio.create_task(serve(ServerConfig(port=0), ColourEngine, on_listening=caller))
    async with asyncio.timeout(DEADLINE_S):
        url, _ = await caller.told
        port = int(url.rpartition(":")[2])
        for words in (b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(words)
            assert (await reader.read(-1)).startswith(b"HTTP/1.1 200") == words.endswith(b"\n")
            writer.close()
        os.kill(os.getpid(), signal.SIGTERM)
        await running


async def test_address_is_told_while_a_model_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address comes with the model's state: ready, or still loading after a time."""
    monkeypatch.setattr("stream.server.ANNOUNCE_S", 0.2)
    gate = threading.Event()

    def load() -> ColourEngine:
        assert gate.wait(DEADLINE_S)
        return ColourEngine()

    caller = Caller()
    running = asyncio.create_task(serve(ServerConfig(port=0), load, on_listening=caller))
    async with asyncio.timeout(DEADLINE_S):
        _, status = await caller.told
        assert status.state is EngineState.LOADING
        gate.set()
        os.kill(os.getpid(), signal.SIGINT)
        await running


async def test_port_in_use_is_one_sentence() -> None:
    """A port that is taken is told before anything is loaded."""
    built: list[ColourEngine] = []

    def build() -> ColourEngine:
        built.append(ColourEngine())
        return built[-1]

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressRefused, match=f"port {port} is in use"):
            await serve(ServerConfig(port=port), build)
    assert not built


async def test_ports_that_cannot_be_kept_are_one_sentence() -> None:
    """A server that could not keep to its UDP ports does not start."""
    config = ServerConfig(
        port=0, udp_ports=PortRange(50_000, 50_100), corrections=Corrections(gathering=False)
    )
    with pytest.raises(ConfigRefused, match='--udp-ports needs the correction "gathering"'):
        await serve(config, ColourEngine)


def test_foreign_address_is_one_sentence() -> None:
    """An address that is not this machine's is told."""
    with pytest.raises(AddressRefused, match=r"192\.0\.2\.254"):
        bind(ServerConfig("192.0.2.254", 0))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 70_000),
        ("max_sessions", 0),
        ("redirect_to", "http://["),
    ],
)
def test_bad_setting_is_one_sentence(name: str, value: int) -> None:
    """A setting out of range names its flag and its value."""
    with pytest.raises(ConfigRefused, match=f"--{name.replace('_', '-')}.*{re.escape(str(value))}"):
        ServerConfig(**{name: value})
