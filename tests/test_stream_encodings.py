"""One encoder for all viewers who want the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from aiortc.codecs import get_decoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import VIDEO_TIME_BASE
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from av import VideoFrame

from stream import encodings
from stream.broadcast import Broadcast
from stream.codecs import VideoEncoder
from stream.encodings import MAX_WAITING_PICTURES, Encodings, Watcher
from stream.feed import ArrivedFrame, Finished
from stream.feedback import KEY_FRAME_INTERVAL_S

pytestmark = pytest.mark.usefixtures("corrected")

VP8 = RTCRtpCodecParameters(mimeType="video/VP8", clockRate=90000, payloadType=96)
H264 = RTCRtpCodecParameters(
    mimeType="video/H264",
    clockRate=90000,
    payloadType=97,
    parameters={"packetization-mode": "1"},
)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[VideoEncoder]:
    """Return every encoder that encodes, as it is first used."""
    used: list[VideoEncoder] = []
    encode_at = VideoEncoder.encode_at

    def watch(self: VideoEncoder, *args: object) -> bytes:
        if self not in used:
            used.append(self)
        return encode_at(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(VideoEncoder, "encode_at", watch)
    return used


class Source:
    """Shows a ramp that grows brighter, so that each frame is known by its mean."""

    def __init__(self) -> None:
        self.broadcast = Broadcast()
        self.encodings = Encodings(self.broadcast)
        self.number = 0

    def show(self) -> None:
        image = np.full((120, 160, 3), 20 + 4 * self.number, np.uint8)
        frame = VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = self.number * 3000, VIDEO_TIME_BASE
        self.number += 1
        arrived = ArrivedFrame(frame, self.number, time.perf_counter())
        self.broadcast.put(Finished(arrived, frame, True))


@asynccontextmanager
async def showing() -> AsyncIterator[Source]:
    source = Source()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(source.encodings.run())
        await asyncio.sleep(0)  # let it subscribe
        yield source
        source.broadcast.close()


class Viewer:
    """Decodes what a watcher is given."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.decoder = get_decoder(watcher.codec)

    async def see(self) -> int:
        """Return the number of the next frame that can be decoded."""
        async with asyncio.timeout(10):
            picture = await self.watcher.get()
        frames = self.decoder.decode(JitterFrame(bytes(picture.packet), picture.packet.pts))
        (frame,) = frames
        return round((frame.to_ndarray(format="rgb24").mean() - 20) / 4)


async def test_viewers_who_want_the_same_share_an_encoder(made: list[VideoEncoder]) -> None:
    """Three viewers of one codec see every frame, and one encoder has made them."""
    async with showing() as source:
        viewers = [Viewer(source.encodings.join(VP8)) for _ in range(3)]
        for number in range(4):
            source.show()
            assert [await viewer.see() for viewer in viewers] == [number] * 3
        assert len(made) == len(source.encodings) == 1


async def test_another_codec_takes_another_encoder(made: list[VideoEncoder]) -> None:
    """A viewer of H264 beside one of VP8 has an encoder of its own, gone when it leaves."""
    async with showing() as source:
        viewers = [Viewer(source.encodings.join(codec)) for codec in (VP8, H264)]
        source.show()
        assert [await viewer.see() for viewer in viewers] == [0, 0]
        assert len(made) == len(source.encodings) == 2
        source.encodings.leave(viewers[1].watcher)
        source.encodings.leave(viewers[1].watcher)
        source.show()
        assert await viewers[0].see() == 1
        assert len(source.encodings) == 1


async def test_who_comes_late_begins_with_a_key_frame(made: list[VideoEncoder]) -> None:
    """A late viewer joins the encoder that runs and can decode from its first picture on."""
    async with showing() as source:
        first = Viewer(source.encodings.join(VP8))
        for number in range(3):
            source.show()
            assert await first.see() == number
        late = Viewer(source.encodings.join(VP8))
        for number in range(3, 6):
            source.show()
            assert [await first.see(), await late.see()] == [number] * 2
        assert len(made) == 1


async def test_a_poor_network_gets_less_without_taking_it_from_others(
    made: list[VideoEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who cannot receive the full bit rate is encoded for apart; both go on without a break."""
    monkeypatch.setattr("stream.bitrate.MIN_CHANGE_INTERVAL_S", 0.0)
    async with showing() as source:
        good, poor = (Viewer(source.encodings.join(VP8)) for _ in range(2))
        source.show()
        assert [await good.see(), await poor.see()] == [0, 0]
        control = poor.watcher.encoder
        control.target_bitrate = 110_000
        control._rate.output.bitrate_bps = 1e6
        for number in range(1, 4):
            source.show()
            assert [await good.see(), await poor.see()] == [number] * 2
        assert len(source.encodings) == len(made) == 2
        rates = sorted(encoder.plan.bitrate_bps for encoder in made if encoder.plan)
        assert rates[0] <= 110_000 < rates[1]


async def test_a_key_frame_is_sent_on_request_and_not_too_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who lost a picture goes on with the next; a second request right after it is ignored."""
    now_s = [100.0]
    monkeypatch.setattr(encodings.time, "perf_counter", lambda: now_s[0])
    async with showing() as source:
        viewer = Viewer(source.encodings.join(VP8))
        are_key_frames = []
        for number in range(5):
            now_s[0] += 0.033 if number != 3 else KEY_FRAME_INTERVAL_S
            if number in (1, 3):
                viewer.watcher.want_key_frame()
            source.show()
            picture = await viewer.watcher.get()
            is_key_frame = not bytes(picture.packet)[0] & 1  # RFC 6386, section 9.1
            are_key_frames.append(is_key_frame)
        assert are_key_frames == [True, False, False, True, False]


async def test_a_sender_that_is_stuck_goes_on_at_a_key_frame() -> None:
    """Pictures that nobody sends are dropped; what comes next can be decoded without them."""
    async with showing() as source:
        stuck, good = (Viewer(source.encodings.join(VP8)) for _ in range(2))
        for number in range(MAX_WAITING_PICTURES + 2):
            source.show()
            assert await good.see() == number
        assert stuck.watcher.dropped == MAX_WAITING_PICTURES + 1
        assert await stuck.see() == MAX_WAITING_PICTURES + 1
