"""Two real aiortc peers in one process, a numbered picture between them, and a bad network."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCRtpSender
from aiortc.mediastreams import VIDEO_TIME_BASE, MediaStreamError
from aiortc.rtp import RtpPacket, is_rtcp

BITS = 16
BIT_PX = 16
DEADLINE_S = 20.0


def draw_number(image: np.ndarray, number: int) -> None:
    """Write a number into the top left corner of an I420 image."""
    for bit in range(BITS):
        image[:BIT_PX, bit * BIT_PX : (bit + 1) * BIT_PX] = 235 if number >> bit & 1 else 16


def read_number(frame: av.VideoFrame, width: int) -> int:
    """Read the number of a frame that was drawn ``width`` wide; it may come smaller."""
    plane = frame.planes[0]
    luma = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    step_px = BIT_PX * frame.width / width
    row = luma[int(step_px / 2)]
    return sum(1 << bit for bit in range(BITS) if row[int((bit + 0.5) * step_px)] > 128)


class NumberedTrack(MediaStreamTrack):
    """A noisy picture at a steady rate, each with its number; remembers when it was made."""

    kind = "video"

    def __init__(
        self, width: int = 320, height: int = 240, rate_hz: int = 30, noise: int = 30
    ) -> None:
        super().__init__()
        self.width = width
        self.made_s: dict[int, float] = {}
        self._rate_hz = rate_hz
        self._number = 0
        self._start_s: float | None = None
        self._waiting: list[tuple[int, asyncio.Event]] = []
        rng = np.random.default_rng(0)
        ramp = np.linspace(16, 200, width, dtype=np.uint8)[None].repeat(height * 3 // 2, 0)
        self._images = [ramp + rng.integers(0, noise, ramp.shape, dtype=np.uint8) for _ in range(4)]

    async def recv(self) -> av.VideoFrame:
        now_s = time.perf_counter()
        self._start_s = self._start_s or now_s
        # A camera's clock, not a wait for something to happen.
        await asyncio.sleep(max(0.0, self._start_s + self._number / self._rate_hz - now_s))
        if self.readyState != "live":
            raise MediaStreamError
        image = self._images[self._number % len(self._images)]
        draw_number(image, self._number)
        frame = av.VideoFrame.from_ndarray(image, "yuv420p")
        frame.pts = self._number * 90000 // self._rate_hz
        frame.time_base = VIDEO_TIME_BASE
        self.made_s[self._number] = time.perf_counter()
        self._number += 1
        for number, event in self._waiting:
            if number <= self._number:
                event.set()
        return frame

    async def reach(self, number: int) -> None:
        """Wait until so many frames are made."""
        event = asyncio.Event()
        self._waiting.append((number, event))
        await asyncio.wait_for(event.wait(), DEADLINE_S)


@dataclass
class Arrival:
    number: int
    at_s: float
    delay_s: float
    pts: int


@dataclass
class Network:
    """What happens to the sender's RTP on its way: drop, repeat or reorder packets."""

    lose: Callable[[RtpPacket, bool], bool] = lambda packet, is_retransmission: False
    """Whether a packet is lost."""
    is_doubled: bool = False
    """Every packet arrives twice."""
    swap_every: int = 0
    """Every n-th packet of a frame arrives after the one behind it."""
    lost: int = 0
    seen: int = 0
    _held: bytes | None = None

    async def carry(
        self, data: bytes, is_retransmission: bool, send: Callable[[bytes], Awaitable[None]]
    ) -> None:
        self.seen += 1
        if self.lose(RtpPacket.parse(data), is_retransmission):
            self.lost += 1
            return
        is_last = RtpPacket.parse(data).marker  # nothing follows it for a while
        is_turn = self.swap_every and self.seen % self.swap_every == 0
        if is_turn and not is_last and self._held is None:
            self._held = data
            return
        for _ in range(1 + self.is_doubled):
            await send(data)
        if self._held is not None:
            held, self._held = self._held, None
            await send(held)


@dataclass
class Bottleneck(Network):
    """A link that carries so many bits a second, with a queue before it that has an end."""

    rate_bps: float = 1e9
    queue_s: float = 0.2
    """A packet that would wait longer is lost, as in a router."""
    free_at_s: float = 0.0
    longest_wait_s: float = 0.0
    repeated: int = 0
    """Packets that were sent again."""

    async def carry(
        self, data: bytes, is_retransmission: bool, send: Callable[[bytes], Awaitable[None]]
    ) -> None:
        self.seen += 1
        self.repeated += is_retransmission
        loop = asyncio.get_running_loop()
        start_s = max(loop.time(), self.free_at_s)
        wait_s = start_s - loop.time()
        if wait_s > self.queue_s:
            self.lost += 1
            return
        self.longest_wait_s = max(self.longest_wait_s, wait_s)
        self.free_at_s = start_s + 8 * len(data) / self.rate_bps
        loop.call_at(self.free_at_s, lambda: asyncio.ensure_future(_deliver(data, send)))


async def _deliver(data: bytes, send: Callable[[bytes], Awaitable[None]]) -> None:
    with suppress(ConnectionError):  # the session may be over by now
        await send(data)


def lose_at_random(share: float, seed: int) -> Callable[[RtpPacket, bool], bool]:
    """Lose this share of all packets, retransmissions too."""
    dice = random.Random(seed)
    return lambda packet, is_retransmission: dice.random() < share


@dataclass
class Pair:
    """``camera`` sends a numbered picture to ``server``."""

    camera: RTCPeerConnection
    server: RTCPeerConnection
    source: NumberedTrack
    network: Network
    track: MediaStreamTrack
    arrivals: list[Arrival] = field(default_factory=list)
    longest_hiccup_s: float = 0.0
    """How long this process got no processor, at worst: what a busy machine adds."""
    unreadable: int = 0
    """Pictures so broken that they show a number which was never drawn."""

    @property
    def sender(self) -> RTCRtpSender:
        return self.camera.getSenders()[0]

    @property
    def receiver(self) -> Any:
        return self.server.getReceivers()[0]

    async def receive(self, frames: int, until: Callable[[], bool] = lambda: False) -> None:
        """Take frames until there are so many, or until a condition holds."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.arrivals) < frames and not until():
                frame = await self.track.recv()
                now_s = time.perf_counter()
                number = read_number(frame, self.source.width)
                made_s = self.source.made_s.get(number)
                if made_s is None:
                    self.unreadable += 1
                    continue
                self.arrivals.append(Arrival(number, now_s, now_s - made_s, frame.pts))

    async def receive_for(self, duration_s: float) -> None:
        """Take frames for a while."""
        end_s = time.perf_counter() + duration_s
        await self.receive(10**6, lambda: time.perf_counter() >= end_s)

    def within_s(self, limit_s: float) -> float:
        """Return a limit that a busy machine can keep as well."""
        return limit_s + 10 * self.longest_hiccup_s

    async def watch_hiccups(self) -> None:
        """Measure how late the loop comes back to a waiting task."""
        tick_s = 0.01
        while True:
            before_s = time.perf_counter()
            await asyncio.sleep(tick_s)
            late_s = time.perf_counter() - before_s - tick_s
            self.longest_hiccup_s = max(self.longest_hiccup_s, late_s)

    def delays_ms(self, since: int = 0) -> list[float]:
        return [arrival.delay_s * 1000 for arrival in self.arrivals[since:]]

    def median_ms(self, since: int = 0) -> float:
        return median(self.delays_ms(since))

    def longest_pause_s(self) -> float:
        times_s = [arrival.at_s for arrival in self.arrivals]
        return max(b - a for a, b in itertools.pairwise(times_s))


@asynccontextmanager
async def connect(
    codec: str = "VP8", network: Network | None = None, source: NumberedTrack | None = None
) -> AsyncIterator[Pair]:
    """Connect two peers and wait for the first frame's track."""
    configuration = RTCConfiguration(iceServers=[])
    camera, server = RTCPeerConnection(configuration), RTCPeerConnection(configuration)
    source = source or NumberedTrack()
    network = network or Network()
    try:
        sender = camera.addTrack(source)
        wanted = [
            capability
            for capability in RTCRtpSender.getCapabilities("video").codecs
            if capability.name in (codec, "rtx")
        ]
        camera.getTransceivers()[0].setCodecPreferences(wanted)
        tracks: asyncio.Queue[MediaStreamTrack] = asyncio.Queue(1)
        server.on("track", tracks.put_nowait)
        await camera.setLocalDescription(await camera.createOffer())
        _spoil(sender, network)
        await server.setRemoteDescription(camera.localDescription)
        await server.setLocalDescription(await server.createAnswer())
        await camera.setRemoteDescription(server.localDescription)
        pair = Pair(camera, server, source, network, await tracks.get())
        watch = asyncio.create_task(pair.watch_hiccups())
        try:
            yield pair
        finally:
            watch.cancel()
            await asyncio.wait([watch])
    finally:
        await camera.close()
        await server.close()


def _spoil(sender: RTCRtpSender, network: Network) -> None:
    transport = sender.transport
    send = transport._send_rtp

    async def send_rtp(data: bytes) -> None:
        if is_rtcp(data):
            await send(data)
        else:
            is_retransmission = int.from_bytes(data[8:12], "big") == sender._rtx_ssrc
            await network.carry(data, is_retransmission, send)

    transport._send_rtp = send_rtp
