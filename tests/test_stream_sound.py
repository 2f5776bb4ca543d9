"""Sound through the server: as it came, and as late as the picture."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from fractions import Fraction
from statistics import median
from typing import Any

import av
import numpy as np
import pytest
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from engines import ColourEngine, SlowEngine
from peers import Peer, Player, Publisher, Screen, Serving, flat, serving
from rtp_peers import NumberedTrack, read_number

from pipeline.engines import Engine, Size
from stream import rtp
from stream.corrections import Corrections
from stream.opus import MAX_JUMP, MAX_OVERTAKING_PACKETS, PacketOrder
from stream.sound import MAX_WAITING_PACKETS, PictureDelay, Sound
from stream.stamps import SentFrame

pytestmark = pytest.mark.usefixtures("corrected")

SIZE = Size(256, 64)
PACKET_S = 0.020
SAMPLES = 960
PACKETS_EVERY = 30
FRAMES_EVERY = 18
FLASH_FRAMES = 8
EVENTS = 7
TOLERANCE_MS = 40


class Flashes(NumberedTrack):
    """A numbered picture, dark but for a flash now and then."""

    def __init__(self) -> None:
        super().__init__(SIZE.width, SIZE.height)
        self.sent_s: dict[int, float] = {}
        """When each frame had left, by its number."""

    async def recv(self) -> av.VideoFrame:
        frame = await super().recv()
        is_bright = (self._number - 1) % FRAMES_EVERY < FLASH_FRAMES
        plane = frame.planes[0]
        luma = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size).copy()
        luma[frame.height // 2 :] = 235 if is_bright else 20
        plane.update(luma.tobytes())
        return frame

    def note_sent(self, sent: SentFrame) -> None:
        self.sent_s[sent.pts * 30 // 90000] = sent.sent_s


class Clicks(MediaStreamTrack):
    """Silence but for a click now and then."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.sent_s: list[float] = []
        """When each click had left."""
        self._number = 0
        self._start_s: float | None = None

    async def recv(self) -> av.AudioFrame:
        now_s = time.perf_counter()
        if self._is_click(self._number - 1):
            self.sent_s.append(now_s)  # for aiortc asks when the last packet has left
        self._start_s = self._start_s or now_s
        # A microphone's clock, not a wait for something to happen.
        await asyncio.sleep(max(0.0, self._start_s + self._number * PACKET_S - now_s))
        if self.readyState != "live":
            raise MediaStreamError
        samples = np.zeros((1, SAMPLES), np.int16)
        if self._is_click(self._number):
            samples[0, :200] = 20000 * np.sin(np.arange(200))
        frame = av.AudioFrame.from_ndarray(samples, "s16", "mono")
        frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
        frame.pts = self._number * SAMPLES
        self._number += 1
        return frame

    @staticmethod
    def _is_click(number: int) -> bool:
        return number >= 0 and number % PACKETS_EVERY == 0


class Witness:
    """Sees flashes and hears clicks at the other end; knows how long they were under way."""

    def __init__(self, screen: Screen, flashes: Flashes, clicks: Clicks) -> None:
        self.flash_delays_s: list[float] = []
        self.click_delays_s: list[float] = []
        self._flashes = flashes
        self._clicks = clicks
        self._decoder: Any = av.CodecContext.create("libopus", "r")
        self._was_bright = self._was_loud = False
        screen.received = self._take  # type: ignore[method-assign]

    def _take(self, track: Any, item: Any) -> None:
        if isinstance(item, av.VideoFrame):
            self._see(item, rtp.received(track, item.pts).complete_s)  # type: ignore[union-attr]
            return
        now_s = time.perf_counter()
        for frame in self._decoder.decode(item):
            self._hear(frame, now_s)

    def _see(self, frame: av.VideoFrame, complete_s: float) -> None:
        plane = frame.planes[0]
        luma = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        is_bright = luma[frame.height * 3 // 4, : frame.width].mean() > 128
        if is_bright and not self._was_bright:
            number = read_number(frame, SIZE.width)
            self.flash_delays_s.append(complete_s - self._flashes.sent_s[number])
        self._was_bright = is_bright

    def _hear(self, frame: av.AudioFrame, now_s: float) -> None:
        is_loud = np.abs(frame.to_ndarray().astype(int)).max() > 2000
        if is_loud and not self._was_loud:
            sent_s = max(sent_s for sent_s in self._clicks.sent_s if sent_s < now_s)
            self.click_delays_s.append(now_s - sent_s)
        self._was_loud = is_loud


Way = Callable[[Serving, str, Flashes, Clicks], Awaitable[Witness]]


async def by_page(server: Serving, query: str, flashes: Flashes, clicks: Clicks) -> Witness:
    """Send both in the page's own way, and get them back in the same session."""
    peer = Peer(server.http, server.base, flat((0, 0, 0)))
    server.peers.append(peer)
    peer.camera = flashes  # type: ignore[assignment]
    peer.pc.addTrack(clicks)
    witness = Witness(peer, flashes, clicks)
    await peer.connect(query)
    rtp.on_sent(peer.pc.getSenders()[1], flashes.note_sent)
    return witness


async def by_whip(server: Serving, query: str, flashes: Flashes, clicks: Clicks) -> Witness:
    """Send both by WHIP, and get them by WHEP."""
    publisher = Publisher(server.http, server.base, flat((0, 0, 0)))
    player = Player(server.http, server.base)
    server.peers += [publisher, player]
    publisher.camera = flashes  # type: ignore[assignment]
    publisher.pc.addTransceiver(clicks, "sendonly")
    player.pc.addTransceiver("audio", "recvonly")
    witness = Witness(player, flashes, clicks)
    await publisher.connect(query)
    rtp.on_sent(publisher.pc.getSenders()[1], flashes.note_sent)
    await player.connect(publisher.id)
    return witness


@pytest.mark.parametrize("way", [by_page, by_whip])
@pytest.mark.parametrize(
    ("engine", "query"),
    [
        pytest.param(lambda: SlowEngine(0.15, SIZE), "?prompt=same", id="slow"),
        pytest.param(lambda: ColourEngine(SIZE), "?bypass=1", id="bypass"),
    ],
)
async def test_a_click_is_heard_when_its_flash_is_seen(
    way: Way, engine: Callable[[], Engine], query: str
) -> None:
    """Sound and picture of one moment leave the server within 40 ms of each other."""
    async with serving(engine) as server:
        witness = await way(server, query, Flashes(), Clicks())
        screen = server.peers[-1]
        await screen.until(
            lambda: len(witness.click_delays_s) >= EVENTS and len(witness.flash_delays_s) >= EVENTS
        )
    # The first events show how a connection begins.
    picture_ms = median(witness.flash_delays_s[2:]) * 1000
    sound_ms = median(witness.click_delays_s[2:]) * 1000
    print(f"picture {picture_ms:.0f} ms, sound {sound_ms:.0f} ms through the server")
    assert abs(picture_ms - sound_ms) <= TOLERANCE_MS


class Tones(MediaStreamTrack):
    """Sends packets that are encoded already, to know them again."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.sent: dict[bytes, int] = {}
        """pts by what was sent."""
        self._number = 0

    async def recv(self) -> Any:
        await asyncio.sleep(PACKET_S)  # a microphone's clock
        packet = av.Packet(b"\xfc" + self._number.to_bytes(4, "big") * 5)
        packet.pts, packet.time_base = self._number * SAMPLES, Fraction(1, 48000)
        self.sent[bytes(packet)] = packet.pts
        self._number += 1
        return packet


async def test_sound_is_passed_on_as_it_came() -> None:
    """Every listener gets the sender's own packets, in order and with their times."""
    async with serving(ColourEngine) as server:
        publisher = Publisher(server.http, server.base, flat((0, 0, 0)))
        server.peers.append(publisher)
        tones = Tones()
        publisher.pc.addTransceiver(tones, "sendonly")
        await publisher.connect()
        heard: list[list[Any]] = []
        for _ in range(2):
            player = Player(server.http, server.base)
            server.peers.append(player)
            player.pc.addTransceiver("audio", "recvonly")
            heard.append([])

            def keep(track: Any, item: Any, into: list[Any] = heard[-1]) -> None:
                if isinstance(item, av.Packet):
                    into.append(item)

            player.received = keep  # type: ignore[method-assign]
            await player.connect(publisher.id)
        for packets, player in zip(heard, server.peers[1:], strict=True):
            await player.until(lambda packets=packets: len(packets) >= 20)
            sent = [tones.sent[bytes(packet)] for packet in packets]
            assert len({pts - packet.pts for pts, packet in zip(sent, packets, strict=True)}) == 1
            assert sent == sorted(sent)


@pytest.mark.parametrize(
    ("offered", "answered"),
    [("sendrecv", "sendrecv"), ("sendonly", "recvonly"), ("recvonly", "inactive")],
)
async def test_sound_of_a_session_is_answered(offered: str, answered: str) -> None:
    """A page that sends its sound gets it back if it wants it; there is no other sound."""
    async with serving(ColourEngine) as server:
        peer = Peer(server.http, server.base, flat((0, 0, 0)))
        server.peers.append(peer)
        peer.pc.addTransceiver("audio", offered)
        await peer.connect()
        directions = {t.kind: t.currentDirection for t in peer.pc.getTransceivers()}
        reverse = {"sendonly": "recvonly", "recvonly": "sendonly"}
        assert directions == {"audio": reverse.get(answered, answered), "video": "sendrecv"}
        await peer.until_frames(2)


@dataclass
class Numbered:
    sequence_number: int
    ssrc: int = 1
    timestamp: int = 0
    _data: bytes = b"x"


def order(*numbers: int) -> list[int]:
    """Return the sequence numbers that come out when these go in."""
    packets = PacketOrder()
    return [out.sequence_number for n in numbers for out in packets.insert(Numbered(n))]


@pytest.mark.parametrize(
    ("given", "out"),
    [
        ((5, 6, 7), [5, 6, 7]),
        ((65534, 65535, 0, 1), [65534, 65535, 0, 1]),
        ((5, 7, 6, 8), [5, 6, 7, 8]),
        ((5, 7, 7, 6, 6, 8), [5, 6, 7, 8]),
        ((5, 4, 6), [5, 6]),
        ((5, 7, 8, 9), [5]),
        ((5, 7, 8, 9, 10, 11, 6, 12), [5, 7, 8, 9, 10, 11, 12]),
        ((5, 2000, 2001, 2002, 2003), [5, 2000, 2001, 2002, 2003]),
        ((5000, 5000 - MAX_JUMP - 1, 5000 - MAX_JUMP), [5000, 3999, 4000]),
    ],
)
def test_packets_come_out_in_order(given: tuple[int, ...], out: list[int]) -> None:
    """Reordered and doubled packets are put right; a lost one holds up three others at most."""
    assert order(*given) == out
    assert MAX_OVERTAKING_PACKETS == 3


def test_another_source_begins_anew() -> None:
    """A sender that starts again under another SSRC is followed at once."""
    packets = PacketOrder()
    assert packets.insert(Numbered(40_000))
    assert [p.sequence_number for p in packets.insert(Numbered(3, ssrc=2))] == [3]


def test_delay_follows_in_steps() -> None:
    """One late picture and a small change leave the delay; a lasting one moves it."""
    delay = PictureDelay()
    for _ in range(60):
        delay.note(0.100)
    assert delay.settled_s == 0.100
    for late_s in (1.0, *[0.105] * 59):
        delay.note(late_s)
    assert delay.settled_s == 0.100
    for _ in range(60):
        delay.note(0.300)
    assert delay.settled_s == 0.300


async def test_sound_waits_for_its_picture() -> None:
    """A packet is given out as late as pictures are, and an overdue one at once."""
    sound, delay = Sound(), PictureDelay()
    track = sound.listen(delay)
    for _ in range(3):
        delay.note(0.2)
    arrived_s = time.perf_counter()
    sound.put("one", arrived_s)
    sound.put("two", arrived_s - 1)
    assert await track.recv() == "one"
    one_s = time.perf_counter() - arrived_s
    assert await track.recv() == "two"
    assert 0.2 <= one_s < time.perf_counter() - arrived_s < one_s + 0.15


async def test_sound_waits_for_nobody_elses_picture() -> None:
    """Where one peer's pictures are late, its sound is; the others hear theirs in time."""
    sound, slow = Sound(), PictureDelay()
    quick_track, slow_track = sound.listen(PictureDelay()), sound.listen(slow)
    slow.note(60.0)
    sound.put("now", time.perf_counter())
    late = asyncio.create_task(slow_track.recv())
    async with asyncio.timeout(5):
        assert await quick_track.recv() == "now"
    assert not late.done()
    late.cancel()


async def test_sound_that_nobody_takes_has_a_bound() -> None:
    """With no room the oldest packet is dropped and counted; who has left gets none."""
    sound = Sound()
    track, gone = (sound.listen(PictureDelay()) for _ in range(2))
    gone.stop()
    gone.stop()
    for number in range(MAX_WAITING_PACKETS + 5):
        sound.put(number, 0.0)
    assert (track.dropped, await track.recv()) == (5, 5)
    assert gone.dropped == 0
    with pytest.raises(MediaStreamError):
        await gone.recv()


async def test_without_the_correction_sound_is_decoded() -> None:
    """Stock aiortc's sound passes too, decoded and encoded again."""
    with rtp.installed(Corrections().without("sound")):
        async with serving(ColourEngine) as server:
            witness = await by_page(server, "?bypass=1", Flashes(), Clicks())
            screen = server.peers[-1]
            frames: list[Any] = []
            screen.received = lambda track, item: frames.append(item)  # type: ignore[method-assign]
            await screen.until(lambda: any(isinstance(item, av.AudioFrame) for item in frames))
            assert witness.click_delays_s == []
