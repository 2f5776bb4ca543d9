"""Encodings: a broadcast, encoded once for all viewers that want the same.

What a viewer wants is set by its codec and by what its network carries. Each viewer keeps
its own control of the bit rate; those that come to the same plan share an encoder, so that
a hundred viewers on good networks cost as much as one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from dataclasses import dataclass

import av
from aiortc.mediastreams import VIDEO_TIME_BASE, convert_timebase
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from av.stream import Stream

from stream import rtp
from stream.bitrate import EncoderPlan
from stream.broadcast import Broadcast
from stream.codecs import VideoEncoder
from stream.feed import Finished
from stream.feedback import KEY_FRAME_INTERVAL_S
from stream.latest import SlotClosed

logger = logging.getLogger(__name__)

# A sender that is this far behind is stuck; a quarter of a second at 30 frames a second.
MAX_WAITING_PICTURES = 8

Wish = tuple[str, str, EncoderPlan]
"""What has to be equal to share: codec, packetization mode, plan."""


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """One encoded frame, for everybody who shares it."""

    packet: av.Packet[Stream]
    finished: Finished
    taken_s: float
    """``time.perf_counter()`` when the encoder got the frame."""


class Watcher:
    """One viewer's part: what it wants, and what waits to be sent to it."""

    def __init__(self, codec: RTCRtpCodecParameters) -> None:
        self.codec = codec
        self.encoder: VideoEncoder = rtp.make_video_encoder(codec)
        """Of this viewer alone: chooses the plan and cuts packets."""
        self.dropped = 0
        # Whose pictures it was given last; None: it can go on at a key frame only.
        self._follows: VideoEncoder | None = None
        self._key_frame_s = -KEY_FRAME_INTERVAL_S
        self._waiting: asyncio.Queue[EncodedPicture] = asyncio.Queue(MAX_WAITING_PICTURES)

    async def get(self) -> EncodedPicture:
        """Wait for the next picture."""
        return await self._waiting.get()

    def want_key_frame(self) -> None:
        """Have the next picture be a key frame, for the receiver has asked.

        Not if it has just been sent one: it costs all who share, and may be on its way.
        """
        if time.perf_counter() - self._key_frame_s >= KEY_FRAME_INTERVAL_S:
            self._follows = None

    def wish(self, frame: av.VideoFrame) -> Wish:
        """Return what a frame is to be encoded as."""
        mode = str(self.codec.parameters.get("packetization-mode", "0"))
        return self.codec.mimeType.lower(), mode, self.encoder.choose_plan(frame)

    def follow(self, encoder: VideoEncoder) -> bool:
        """Go over to an encoder; tell whether its next picture must be a key frame."""
        has_changed = self._follows is not encoder
        if has_changed:
            self._follows = encoder
            self._key_frame_s = time.perf_counter()
        return has_changed

    def put(self, picture: EncodedPicture) -> None:
        """Leave a picture to be sent. With no room, drop all and go on at a key frame."""
        if self._waiting.full():
            self.dropped += self._waiting.qsize() + 1
            while not self._waiting.empty():
                self._waiting.get_nowait()
            self._follows = None
            return
        self._waiting.put_nowait(picture)
        self.encoder.account(picture.packet.size)


class Encodings:
    """Encodes the newest frame of a broadcast, once for each wish; used on the event loop."""

    def __init__(self, broadcast: Broadcast) -> None:
        self._broadcast = broadcast
        self._watchers: set[Watcher] = set()
        self._encoders: dict[Wish, VideoEncoder] = {}

    def __len__(self) -> int:
        """How many encoders are at work."""
        return len(self._encoders)

    @property
    def is_watched(self) -> bool:
        """Whether there is anybody to encode for."""
        return bool(self._watchers)

    def join(self, codec: RTCRtpCodecParameters) -> Watcher:
        """Give a viewer its part, from the next frame on."""
        watcher = Watcher(codec)
        for _, _, plan in self._encoders:
            watcher.encoder.expect_frame_rate(plan.frame_rate_hz)
        self._watchers.add(watcher)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """Take it away. Calling it again does nothing."""
        self._watchers.discard(watcher)

    async def run(self) -> None:
        """Encode until the broadcast ends."""
        slot = self._broadcast.subscribe()
        while True:
            try:
                finished = await slot.get()
            except SlotClosed:
                return
            groups = self._group(finished.frame)
            # One that nobody follows would have to begin with a key frame again anyway.
            self._encoders = {wish: self._encoders[wish] for wish in groups}
            await asyncio.gather(
                *(self._encode(wish, group, finished) for wish, group in groups.items())
            )

    def _group(self, frame: av.VideoFrame) -> dict[Wish, list[Watcher]]:
        groups: defaultdict[Wish, list[Watcher]] = defaultdict(list)
        for watcher in self._watchers:
            wish = watcher.wish(frame)
            groups[wish].append(watcher)
            if wish not in self._encoders:
                self._encoders[wish] = rtp.make_video_encoder(watcher.codec)
        return groups

    async def _encode(self, wish: Wish, group: list[Watcher], finished: Finished) -> None:
        encoder = self._encoders[wish]
        newcomers = [watcher for watcher in group if watcher.follow(encoder)]
        frame, taken_s = finished.frame, time.perf_counter()
        try:
            data = await asyncio.to_thread(encoder.encode_at, wish[-1], frame, bool(newcomers))
        except av.FFmpegError:
            logger.exception("a frame was not encoded for %d viewers", len(group))
            del self._encoders[wish]
            return
        packet = av.Packet(data)
        packet.pts = convert_timebase(frame.pts, frame.time_base, VIDEO_TIME_BASE)
        packet.time_base = VIDEO_TIME_BASE
        for watcher in group:
            watcher.put(EncodedPicture(packet, finished, taken_s))
