"""What a camera may send: hostile sizes and rates end or thin its session, and nothing else."""

from __future__ import annotations

import asyncio
import itertools
import resource
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from aiortc import MediaStreamTrack, RTCRtpSender
from av import VideoFrame
from engines import ColourEngine
from key_frames import key_frame
from peers import DEADLINE_S, Publisher, Serving, flat, serving

from stream.camera_limits import MAX_RATE_HZ, MAX_RESIZES, CameraLimits
from stream.frame_size import find_h264_size, find_vp8_size

pytestmark = pytest.mark.usefixtures("corrected")

ORANGE = (200, 120, 40)
PIXELS = 4096 * 2304
ONE_PICTURE_KB = 16383 * 16383 * 3 // 2 // 1024


def encode(codec: str, width: int, height: int, **options: str) -> bytes:
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base = Fraction(1, 30)
    context.options = options
    frame = VideoFrame.from_ndarray(np.full((height * 3 // 2, width), 90, np.uint8), "yuv420p")
    frame.pts = 0
    packets = [*context.encode(frame), *context.encode(None)]
    return b"".join(bytes(packet) for packet in packets)


@pytest.mark.parametrize("size", [(16, 16), (640, 480), (1278, 712), (2560, 1440)])
def test_size_is_read_off_what_encoders_make(size: tuple[int, int]) -> None:
    """VP8 to the pixel; H264 in macroblocks, of every profile, also interlaced."""
    assert find_vp8_size(encode("libvpx", *size)) == size
    whole = tuple((length + 15) // 16 * 16 for length in size)
    for profile in ("baseline", "main", "high"):
        assert find_h264_size(encode("libx264", *size, profile=profile)) == whole
    interlaced = find_h264_size(encode("libx264", *size, **{"x264-params": "interlaced=1"}))
    assert interlaced is not None
    assert interlaced[0] == whole[0]
    assert whole[1] <= interlaced[1] <= whole[1] + 16
    scaled = encode("libx264", *size, **{"x264-params": "cqm=jvt"}, profile="high")
    assert find_h264_size(scaled) == whole


@pytest.mark.parametrize(
    "data", [b"", b"\x00\x00\x01", b"\x00\x00\x01\x67", b"\x00\x00\x01\x67" + bytes(5000)]
)
def test_what_is_no_frame_has_no_size(data: bytes) -> None:
    """Cut-off and empty heads are nothing; they neither raise nor take long."""
    assert find_vp8_size(data) is None
    assert find_h264_size(data) is None


def test_great_key_frames_are_what_they_say() -> None:
    """The frames that the tests send have the size that is read off them."""
    assert find_vp8_size(key_frame("vp8-16383x16383")) == (16383, 16383)
    assert find_h264_size(key_frame("h264-16000x16000")) == (16000, 16000)


class KeyFrames(MediaStreamTrack):
    """Sends the same encoded key frame again and again."""

    kind = "video"

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = data
        self.number = 0

    async def recv(self) -> av.Packet:
        await asyncio.sleep(0.2 * bool(self.number))  # a camera's clock
        packet = av.Packet(self.data)
        packet.pts = self.number * 18_000
        packet.time_base = Fraction(1, 90_000)
        self.number += 1
        return packet


async def publish(server: Serving, track: MediaStreamTrack, codec: str) -> Publisher:
    publisher = Publisher(server.http, server.base, flat(ORANGE))
    server.peers.append(publisher)
    transceiver = publisher.pc.addTransceiver(track, "sendonly")
    codecs = RTCRtpSender.getCapabilities("video").codecs
    transceiver.setCodecPreferences([each for each in codecs if each.name == codec])
    await publisher.post("/whip")
    pace(transceiver.sender.transport)
    return publisher


def pace(transport: Any) -> None:
    """Send as a browser does: hundreds of packets at once overrun the receiver's socket."""
    send, sent = transport._send_rtp, itertools.count(1)

    async def send_in_time(data: bytes) -> None:
        await send(data)
        if next(sent) % 16 == 0:
            await asyncio.sleep(0.005)

    transport._send_rtp = send_in_time


@pytest.mark.parametrize(
    ("codec", "name"), [("VP8", "vp8-16383x16383"), ("H264", "h264-16000x16000")]
)
async def test_giant_key_frame_ends_its_session_only(
    codec: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A real key frame of 16383x16383 from a real peer is not decoded; another session goes on."""
    caplog.set_level("INFO")
    data = key_frame(name)
    async with serving(ColourEngine) as server:
        good = await server.connect(flat(ORANGE))
        await good.until_frames(3)
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        publisher = await publish(server, KeyFrames(data), codec)
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.wait([server.app_tasks()[publisher.id]])
        width = name.rpartition("x")[2]
        assert f"a frame of {width}x{width} is too large" in caplog.text
        assert len(server.sessions) == 1
        await good.until_frames(10)
        # One decoded picture would be 400 MB.
        grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
        assert grown_kb < ONE_PICTURE_KB / 4


def frame(width: int = 64, height: int = 48) -> VideoFrame:
    return VideoFrame(width, height, "yuv420p")


def to_limits() -> tuple[CameraLimits, list[str]]:
    told: list[str] = []
    return CameraLimits(PIXELS, lambda _, detail: told.append(detail)), told


@pytest.mark.parametrize(("rate_hz", "used_hz"), [(15, 15), (30, 30), (60, 60), (240, 66)])
def test_fast_camera_is_thinned(rate_hz: int, used_hz: int) -> None:
    """Of 240 frames a second some 60 are used, spread evenly, and that is said once."""
    limits, told = to_limits()
    taken = [number for number in range(10 * rate_hz) if limits.takes(number / rate_hz)]
    assert len(taken) == pytest.approx(10 * used_hz, abs=31)
    assert limits.thinned == 10 * rate_hz - len(taken)
    steps = np.diff(taken[60:])
    assert steps.max() - steps.min() <= 1
    words = f"The camera sends more than {MAX_RATE_HZ} frames a second; so many are used."
    assert told == ([words] if rate_hz > MAX_RATE_HZ else [])


def test_bursts_of_a_slow_camera_are_all_used() -> None:
    """Frames that a network held up and gives out at once are not too many."""
    limits, told = to_limits()
    assert all(limits.takes(burst + 0.001 * number) for burst in range(5) for number in range(30))
    assert not told


def test_camera_that_always_changes_its_size_is_ended() -> None:
    """Each size costs an encoder: so many changes in ten seconds are no adaptation."""
    limits, _ = to_limits()
    for number in range(100):  # every two seconds, as browsers do
        assert limits.find_offence(frame(64 + 2 * (number % 2)), 2.0 * number) is None
    limits, _ = to_limits()
    offences = [
        limits.find_offence(frame(64 + 2 * (number % 2)), 0.1 * number)
        for number in range(MAX_RESIZES)
    ]
    assert offences[:-1] == [None] * (MAX_RESIZES - 1)
    assert offences[-1] == f"the camera has changed its size {MAX_RESIZES} times in 1 s"


async def test_240_frames_a_second_are_thinned_on_the_way() -> None:
    """A real camera of 240 frames a second is told so, and not all of it reaches the model."""

    class Fast(MediaStreamTrack):
        kind = "video"
        number = 0

        async def recv(self) -> VideoFrame:
            await asyncio.sleep(1 / 240)  # a camera's clock
            picture = frame()
            picture.pts = self.number * 375
            picture.time_base = Fraction(1, 90_000)
            self.number += 1
            return picture

    async with serving(ColourEngine) as server:
        peer = await server.connect(flat(ORANGE))
        peer.pc.getSenders()[0].replaceTrack(Fast())
        notice = await peer.until_message(lambda m: m.get("type") == "notice")
        assert "more than 60 frames a second" in notice["detail"]
        await peer.until_frames(10)
