"""Sessions, with real peers over a real network interface."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import aioice.ice
import numpy as np
import pytest
from aiohttp.test_utils import TestServer
from engines import TRANSFORMS, ColourEngine, FailingEngine, SlowEngine, transform
from peers import DEADLINE_S, Peer, Serving, flat, middle, serving, to_rgb

from pipeline.engines import Size
from pipeline.errors import CheckpointError, EngineError
from stream.config import ServerConfig
from stream.errors import ServerFull
from stream.sound import PictureDelay

pytestmark = pytest.mark.usefixtures("corrected")

ORANGE = (200, 120, 40)
INVERTED = (55, 135, 215)
FAST = ServerConfig(stats_interval_s=0.1)


def expected(prompt: str, colour: tuple[int, int, int], strength: float = 1.0) -> np.ndarray:
    image = np.full((1, 1, 3), colour, np.uint8)
    return transform(image, TRANSFORMS[prompt], strength)[0, 0].astype(int)


def distance(frame: Any, colours: list[np.ndarray]) -> int:
    """Return how far a frame's middle is from the nearest of some colours."""
    return min(int(np.abs(middle(frame) - colour).max()) for colour in colours)


async def test_frames_come_back_translated() -> None:
    """A peer receives its own picture in the style it asked for, at its own size."""
    async with serving(ColourEngine) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        frame = await peer.until_colour(INVERTED)
        assert (frame.width, frame.height) == (160, 120)


async def test_two_sessions_see_only_their_own() -> None:
    """Of two sessions at once, no frame has the other's picture, prompt or strength."""
    reds = [(210, 40, 60), (150, 40, 60)]
    blues = [(30, 90, 200), (30, 160, 200)]

    def blink(colours: list[tuple[int, int, int]]) -> Callable[[int], np.ndarray]:
        return lambda number: flat(colours[number // 6 % 2])(number)

    async with serving(ColourEngine) as server:
        one = await server.connect(blink(reds), "?prompt=invert")
        two = await server.connect(blink(blues), "?prompt=swap&strength=0.5")
        await asyncio.gather(one.until_frames(60), two.until_frames(60))
        for peer, colours in (
            (one, [expected("invert", red) for red in reds]),
            (two, [expected("swap", blue, 0.5) for blue in blues]),
        ):
            for frame in peer.frames:
                assert distance(frame, colours) <= 20, middle(frame)
            seen = {
                min(range(2), key=lambda i: int(np.abs(middle(frame) - colours[i]).sum()))
                for frame in peer.frames
            }
            assert seen == {0, 1}


async def test_pts_of_the_input_is_on_the_output() -> None:
    """A frame's picture and its pts belong together, whatever was dropped between."""

    def paint(number: int) -> np.ndarray:
        return flat((10 + 30 * (number % 8),) * 3)(number)

    async with serving(lambda: SlowEngine(0.05)) as server:
        peer = await server.connect(paint, "?prompt=same")
        await peer.until_frames(30)
        shifts = set()
        for before, frame in zip([None, *peer.frames], peer.frames, strict=False):
            assert before is None or frame.pts > before.pts
            number = round(float(frame.pts * frame.time_base) * 30)
            shifts.add((round((middle(frame)[0] - 10) / 30) - number) % 8)
        assert len(shifts) == 1


async def test_size_change_in_mid_stream_is_followed() -> None:
    """When the camera changes its size and aspect, the output does too."""

    def paint(number: int) -> np.ndarray:
        return flat(ORANGE, (160, 120) if number < 20 else (96, 176))(number)

    async with serving(ColourEngine) as server:
        peer = await server.connect(paint, "?prompt=invert")
        await peer.until(
            lambda: peer.frames and (peer.frames[-1].width, peer.frames[-1].height) == (96, 176)
        )
        await peer.until_frames(3)
        sizes = [(frame.width, frame.height) for frame in peer.frames]
        assert list(dict.fromkeys(sizes)) == [(160, 120), (96, 176)]
        assert distance(peer.frames[-1], [np.array(INVERTED)]) <= 14


async def test_aspect_is_kept() -> None:
    """A wide picture passes a 4:3 engine without being cut or distorted."""

    def paint(_: int) -> np.ndarray:
        image = np.zeros((80, 320, 3), np.uint8)
        image[:, :80] = 200
        image[:20] = 100
        return image

    async with serving(ColourEngine) as server:
        peer = await server.connect(paint, "?prompt=same")
        await peer.until_frames(10)
        image = to_rgb(peer.frames[-1]).astype(int)
        assert image.shape == (80, 320, 3)
        assert np.abs(image[30:75, 10:65] - 200).mean() < 12
        assert np.abs(image[30:75, 100:] - 0).mean() < 12
        assert np.abs(image[3:12] - 100).mean() < 12


async def test_slow_engine_drops_and_does_not_delay() -> None:
    """Behind a model slower than the camera, frames are dropped and their age is bounded."""
    step_s = 0.15
    async with serving(lambda: SlowEngine(step_s), FAST) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        await peer.until_frames(16)
        stats = await peer.until(lambda: peer.messages[-1]["type"] == "stats" and peer.messages[-1])
        assert stats["dropped_in"] > 16
        assert step_s * 1000 <= stats["stages_ms"]["translate"] <= stats["age_ms"]
        assert stats["age_ms"] <= 3 * step_s * 1000
        assert all(stats["stages_ms"][stage] > 0 for stage in ("decode", "wait", "encode"))
        assert stats["fps_out"] < stats["fps_in"]


async def test_bypass_sends_the_camera_in_order() -> None:
    """Bypass shows the camera at once, its end the style, and no frame comes twice or late."""
    async with serving(ColourEngine, FAST) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        await peer.until_colour(INVERTED)
        assert (await peer.ask({"bypass": True}, 1))["controls"]["bypass"] is True
        await peer.until_colour(ORANGE)
        await peer.until_message(lambda m: m.get("state") == "bypass")
        await peer.ask({"bypass": False}, 2)
        await peer.until_colour(INVERTED)
        pts = [frame.pts for frame in peer.frames]
        assert pts == sorted(set(pts))
        assert len({(frame.width, frame.height) for frame in peer.frames}) == 1


async def test_change_of_prompt_fades() -> None:
    """A change of prompt takes transition_s and passes through what lies between."""
    async with serving(ColourEngine) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=same&transition_s=1.5")
        await peer.until_colour(ORANGE)
        await peer.ask({"prompt": "invert"})
        start = len(peer.frames)
        await peer.until_colour(INVERTED, 6)
        reds = [int(middle(frame)[0]) for frame in peer.frames[start:]]
        assert any(90 < red < 165 for red in reds)
        assert all(later <= red + 12 for red, later in pairwise(reds))


async def test_channel_tells_controls_and_refuses_what_is_wrong() -> None:
    """The channel opens with all settings; a bad change is answered and changes nothing."""
    async with serving(ColourEngine) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        hello = await peer.until_message(lambda m: m["type"] == "controls")
        assert hello["controls"]["prompt"] == "invert"
        assert "id" not in hello
        refused = await peer.ask({"prompt": "cubism", "strength": 0.1}, 7)
        assert refused["type"] == "error"
        assert "invert and swap" in refused["detail"]
        accepted = await peer.ask({"strength": 0.25}, 8)
        assert accepted["controls"] == {**hello["controls"], "strength": 0.25}
        for raw, word in (("nonsense", "JSON"), ('{"id": 9}', "control message")):
            peer.channel.send(raw)
            error = await peer.until_message(
                lambda m, word=word: m["type"] == "error" and word in m["detail"]
            )
            assert error["id"] is None
        peer.channel.send(b"\x00\x01")
        await peer.until_message(lambda m: m["type"] == "error" and "binary" in m["detail"])


async def test_controls_over_http_reach_the_channel() -> None:
    """PATCH changes the settings, and the peer's own page is told."""
    async with serving(ColourEngine) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        await peer.until_message(lambda m: m["type"] == "controls")
        url = f"{server.base}{peer.location}/controls"
        async with server.http.patch(url, json={"prompt": "same"}) as response:
            assert (response.status, (await response.json())["prompt"]) == (200, "same")
        await peer.until_message(lambda m: m.get("controls", {}).get("prompt") == "same")
        await peer.until_colour(ORANGE)
        async with server.http.patch(url, json={"prompt": "cubism"}) as response:
            assert response.status == 422
            assert response.content_type == "application/problem+json"
        async with server.http.get(url) as response:
            assert (await response.json())["prompt"] == "same"


async def test_empty_prompt_is_the_first_style() -> None:
    """Without a prompt, the model's first style is rendered and named."""
    async with serving(ColourEngine) as server:
        peer = await server.connect(flat(ORANGE))
        await peer.until_colour(INVERTED)
        hello = await peer.until_message(lambda m: m["type"] == "controls")
        assert hello["controls"]["prompt"] == "invert"


async def test_camera_is_shown_while_the_model_loads() -> None:
    """While the model loads the camera is seen; an unknown prompt is then told and replaced."""
    gate = threading.Event()

    def load() -> ColourEngine:
        assert gate.wait(DEADLINE_S)
        return ColourEngine()

    async with serving(load, FAST, wait=False) as server:
        try:
            peer = await server.connect(flat(ORANGE), "?prompt=cubism")
            await peer.until_colour(ORANGE)
            await peer.until_message(lambda m: m.get("state") == "loading")
        finally:
            gate.set()
        await peer.until_colour(INVERTED)
        notice = await peer.until_message(lambda m: m["type"] == "notice")
        assert notice["level"] == "warning"
        assert "cubism" in notice["detail"]
        await peer.until_message(lambda m: m.get("controls", {}).get("prompt") == "invert")
        await peer.until_message(lambda m: m.get("state") == "live")


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (EngineError("the card fell off the bus"), "bus"),
        (MemoryError("no memory"), "no memory"),
        # What torch raises, by its own name, when a card is full.
        (RuntimeError("CUDA out of memory"), "out of memory"),
    ],
)
async def test_engine_that_fails_is_replaced_and_the_stream_goes_on(
    error: Exception, word: str
) -> None:
    """An engine that raises in mid-stream costs no session: camera, notice, new engine."""
    engines: list[ColourEngine] = []

    def build() -> ColourEngine:
        first = not engines
        engines.append(FailingEngine(lambda call: first and call >= 8, error))
        return engines[-1]

    async with serving(build, FAST) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        await peer.until_message(lambda m: m["type"] == "notice" and word in m["detail"])
        await peer.until(lambda: len(engines) == 2)
        await peer.until_frames(10)
        await peer.until_colour(INVERTED)
        assert engines[0].is_closed
        assert all(
            distance(frame, [np.array(INVERTED), np.array(ORANGE)]) <= 20 for frame in peer.frames
        )


async def test_unexpected_error_of_an_engine_costs_one_batch() -> None:
    """After an error that is not the engine's end, the same engine goes on."""
    built: list[FailingEngine] = []

    def build() -> FailingEngine:
        built.append(FailingEngine(lambda call: call in (5, 6), ValueError("odd picture")))
        return built[-1]

    async with serving(build) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        await peer.until_message(lambda m: m["type"] == "notice")
        await peer.until_frames(20)
        await peer.until_colour(INVERTED)
        assert len(built) == 1
        assert len([m for m in peer.messages if m["type"] == "notice"]) == 1


async def test_swap_keeps_the_stream() -> None:
    """Another model of another size takes over: same prompt, same output size, no gap."""
    async with serving(ColourEngine, FAST) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        await peer.until_colour(INVERTED)
        swap = server.engine.swap(lambda: ColourEngine(Size(96, 96), max_batch=1))
        await asyncio.gather(swap, peer.until_frames(5))
        await peer.until_message(lambda m: (m.get("engine") or {}).get("size") == "96x96")
        await peer.until_frames(10)
        assert all(distance(frame, [np.array(INVERTED)]) <= 20 for frame in peer.frames)
        assert {(frame.width, frame.height) for frame in peer.frames} == {(160, 120)}


async def test_swap_that_fails_leaves_the_old_model() -> None:
    """A model that cannot be built is an error for who asked; the old one goes on."""

    def broken() -> ColourEngine:
        raise CheckpointError("the weights are cut off")

    async with serving(ColourEngine) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        await peer.until_colour(INVERTED)
        with pytest.raises(CheckpointError):
            await server.engine.swap(broken)
        assert server.engine.status.is_ready
        await peer.until_frames(5)
        await peer.until_colour(INVERTED)


async def test_two_swaps_at_once_are_refused() -> None:
    """While one model is being built, another is refused."""
    gate = threading.Event()

    def load() -> ColourEngine:
        assert gate.wait(DEADLINE_S)
        return ColourEngine()

    async with serving(ColourEngine) as server:
        first = asyncio.create_task(server.engine.swap(load))
        await asyncio.sleep(0)  # let the first swap begin
        with pytest.raises(ServerFull):
            await server.engine.swap(ColourEngine)
        gate.set()
        await first


@pytest.mark.parametrize("size", [(320, 240), (640, 16)])
async def test_odd_frame_ends_its_session(size: tuple[int, int]) -> None:
    """A frame beyond the limits ends the session that sent it."""
    async with serving(ColourEngine, ServerConfig(max_frame_pixels=160 * 120)) as server:
        peer = await server.connect(
            lambda number: flat(ORANGE, (160, 120) if number < 10 else size)(number)
        )
        session = server.session(peer)
        await until_gone(server, peer)
        assert session.stats.frames_in > 1


def count_resources() -> tuple[int, int, int]:
    gc.collect()
    names = [thread.name for thread in threading.enumerate()]
    own = [name for name in names if not name.startswith("asyncio")]
    return len(asyncio.all_tasks()), len(own), len(os.listdir("/proc/self/fd"))


async def settle() -> None:
    """Wait for aioice, which notices in its own 20 ms rhythm that a connection was closed."""
    connecting = [
        task
        for task in asyncio.all_tasks()
        if "__connect" in getattr(task.get_coro(), "__qualname__", "")
    ]
    if connecting:
        await asyncio.wait(connecting, timeout=1)


async def until_gone(server: Serving, peer: Peer) -> None:
    """Wait until the server has freed a peer's session."""
    task = server.app_tasks().get(peer.location.rpartition("/")[2])
    if task is not None:
        await asyncio.wait([task], timeout=DEADLINE_S)
        assert task.done()


def kill(peer: Peer) -> None:
    """Cut a peer's sockets without a goodbye, as a killed browser does."""
    for transceiver in peer.pc.getTransceivers():
        for protocol in transceiver.receiver.transport.transport._connection._protocols:
            protocol.transport.abort()


async def leave_never_connected(server: Serving) -> None:
    peer = Peer(server.http, server.base, flat(ORANGE))
    await peer.connect(answer=False)
    await until_gone(server, peer)
    await peer.close()


async def leave_killed(server: Serving) -> None:
    peer = Peer(server.http, server.base, flat(ORANGE))
    await peer.connect()
    await peer.until_frames(2)
    kill(peer)
    await until_gone(server, peer)
    await peer.close()


async def leave_deleted(server: Serving) -> None:
    peer = Peer(server.http, server.base, flat(ORANGE))
    await peer.connect()
    await peer.until_frames(2)
    async with server.http.delete(server.base + peer.location) as response:
        assert response.status == 200
    async with server.http.delete(server.base + peer.location) as response:
        assert response.status == 404
    await peer.close()


async def leave_closed(server: Serving) -> None:
    peer = Peer(server.http, server.base, flat(ORANGE))
    await peer.connect()
    await peer.until_frames(2)
    await peer.close()
    await until_gone(server, peer)


async def leave_while_connecting(server: Serving) -> None:
    """Leave at ever later points of the handshakes."""
    for turns in range(0, 160, 8):
        peer = Peer(server.http, server.base, flat(ORANGE))
        await peer.connect()
        for _ in range(turns):
            await asyncio.sleep(0)  # let the handshakes go on a little
        async with server.http.delete(server.base + peer.location) as response:
            assert response.status in (200, 404)
        await peer.close()


@pytest.mark.parametrize(
    ("leave", "rounds"),
    [
        (leave_while_connecting, 1),
        (leave_never_connected, 8),
        (leave_killed, 4),
        (leave_deleted, 6),
        (leave_closed, 6),
    ],
)
async def test_nothing_is_left_behind(
    leave: Callable[[Serving], Any], rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a peer goes, its tasks, threads and file descriptors go too."""
    monkeypatch.setattr(aioice.ice, "CONSENT_INTERVAL", 0.2)
    monkeypatch.setattr(aioice.ice, "CONSENT_FAILURES", 2)
    async with serving(ColourEngine, ServerConfig(connect_timeout_s=0.5)) as server:
        await leave(server)  # what is made once: executor threads, the HTTP connection
        before = count_resources()
        for _ in range(rounds):
            await leave(server)
        after = count_resources()
        assert all(now <= then for now, then in zip(after, before, strict=True)), (before, after)
        assert len(server.sessions) == 0


async def test_a_killed_peer_frees_its_place_soon(caplog: pytest.LogCaptureFixture) -> None:
    """Without a goodbye, silence ends a session long before ICE would."""
    caplog.set_level(logging.INFO, "stream.session")
    async with serving(ColourEngine, ServerConfig(silence_timeout_s=1.0)) as server:
        peer = await server.connect(flat(ORANGE))
        await peer.until_frames(2)
        kill(peer)
        killed_s = time.perf_counter()
        await until_gone(server, peer)
        assert time.perf_counter() - killed_s < 5  # aioice: 30 s
        assert len(server.sessions) == 0
    assert "the peer has sent nothing for 1 s" in caplog.text


async def test_who_only_watches_is_not_taken_for_silent() -> None:
    """A viewer that sends nothing but reports stays, however long it watches."""
    async with serving(ColourEngine, ServerConfig(silence_timeout_s=2.0)) as server:
        publisher = await server.publish(flat(ORANGE))
        player = await server.play(publisher.id)
        await player.until_frames(1)
        since_s = time.perf_counter()
        await player.until(lambda: time.perf_counter() - since_s > 5)
        assert len(server.sessions) == 2


async def test_server_stops_with_open_sessions() -> None:
    """Stopping the server ends its sessions and the engine's thread."""
    async with serving(ColourEngine) as server:
        peer = await server.connect(flat(ORANGE))
        await peer.until_frames(2)
        assert isinstance(server.server, TestServer)
        await server.server.close()
        assert len(server.sessions) == 0
        assert "engine" not in [thread.name for thread in threading.enumerate()]


async def test_sender_that_fails_ends_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder that raises does not leave a session that is live and silent."""
    calls: list[object] = []

    def fail(*arguments: object, **_: object) -> None:
        calls.append(arguments)
        raise ValueError("no such plan")

    async with serving(ColourEngine) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        await peer.until_frames(3)
        # The server's encoder alone: the peer's camera goes on.
        senders = server.session(peer)._peer_connection.getSenders()
        (sender,) = (sender for sender in senders if sender.kind == "video")
        monkeypatch.setattr(sender._RTCRtpSender__encoder, "encode", fail)
        await until_gone(server, peer)
        assert calls
        assert len(server.sessions) == 0


async def test_what_happens_beneath_is_counted() -> None:
    """Losses, refused datagrams, sound and frames that nobody took are told and exported."""
    async with serving(ColourEngine, FAST) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        await peer.until_frames(3)
        session = server.session(peer)
        (receiver,) = (t.receiver for t in session._peer_connection.getTransceivers())
        receiver.counters.nacks += 5
        receiver.transport.transport._connection.refused_datagrams += 7
        session._camera._queue.dropped += 11
        session.sound.listen(PictureDelay()).dropped += 13
        stats = await peer.until_message(lambda m: m.get("beneath", {}).get("nacks", 0) >= 5)
        assert stats["beneath"]["refused_datagrams"] >= 7
        assert stats["beneath"]["sound_dropped"] == 13
        assert stats["dropped_in"] >= 11
        async with server.http.get(server.base + "/metrics") as response:
            lines = dict(line.rsplit(" ", 1) for line in (await response.text()).splitlines())
        assert float(lines['stream_beneath_total{event="nacks"}']) >= 5
        assert float(lines['stream_beneath_total{event="sound_dropped"}']) == 13
        assert float(lines['stream_frames_dropped_total{side="in"}']) >= 11


async def test_statistics_do_not_come_in_a_burst() -> None:
    """After a loop that was held up, one message of statistics comes, not all that were due."""
    async with serving(ColourEngine, FAST) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        await peer.until_message(lambda m: m["type"] == "stats")
        sent: list[float] = []
        send = server.session(peer)._send_stats
        server.session(peer)._send_stats = lambda: (sent.append(time.perf_counter()), send())
        time.sleep(1.2)  # noqa: ASYNC251 - holds the loop up; twelve messages would be due
        await peer.until(lambda: len(sent) >= 4)
        assert sent[3] - sent[0] > 0.2
