"""The receiving end: aiortc's, with our jitter buffer, feedback and bounded queues."""

from __future__ import annotations

import asyncio
import logging
import queue
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from aiortc import RTCRtpReceiver
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtcrtpreceiver import RemoteStreamTrack

from stream import opus
from stream.corrections import Corrections
from stream.feedback import MAX_NACKS, KeyFrameRequests, NackRequests
from stream.jitterbuffer import EncodedFrame, JitterBuffer
from stream.keyframes import KeyStart, find_key_start
from stream.stamps import ReceivedFrames
from stream.timestamps import Timestamps

logger = logging.getLogger(__name__)

MAX_GAP_S = 0.150
"""The longest that a lost packet is waited for."""
# Half a second at 30 frames a second: a decoder this far behind does not catch up.
MAX_UNDECODED_FRAMES = 16
# A report has five bits for their number (RFC 3550, section 6.4.2).
MAX_STREAMS = 31
# One second of 20 ms packets: an audio track that nobody reads may not grow either.
MAX_AUDIO_FRAMES = 50


@dataclass(slots=True)
class ReceiveCounters:
    """What happened to one video stream on its way in."""

    nacks: int = 0
    """Packets asked for again; one that is asked for twice counts twice."""
    key_frames_asked: int = 0
    gaps_skipped: int = 0
    """Losses that were not repaired in time."""
    overflows: int = 0
    """How often the decoder was too slow."""


class NewestStreams(dict[int, Any]):
    """What aiortc knows of each stream by its SSRC; a new one replaces the oldest.

    A peer may send under four billion. aiortc keeps all of them, and ends by an exception when it
    reports of too many, or estimates the bit rate of too many; then nobody could stop the receiver
    any more.
    """

    def __setitem__(self, ssrc: int, stream: Any) -> None:
        if ssrc not in self and len(self) >= MAX_STREAMS:
            del self[next(iter(self))]
        super().__setitem__(ssrc, stream)


class NewestQueue(asyncio.Queue[Any]):
    """A queue where a newer frame replaces the oldest when there is no room.

    ``maxsize`` 0 is without a bound, as aiortc has it.
    """

    def __init__(self, maxsize: int, received: ReceivedFrames | None) -> None:
        super().__init__(maxsize)
        self.dropped = 0
        self._received = received

    def put(self, item: Any) -> Coroutine[Any, Any, None]:
        """Return what adds ``item``; called by the decoder's thread, run on the loop."""
        if item is not None and self._received is not None:
            self._received.decoded(item.pts, time.perf_counter())
        return self._put_newest(item)

    def put_newest(self, item: Any) -> None:
        """Add ``item`` on the loop."""
        if self.full():
            self.get_nowait()
            self.dropped += 1
        self.put_nowait(item)

    async def _put_newest(self, item: Any) -> None:
        self.put_newest(item)


class RemoteTrack(RemoteStreamTrack):  # type: ignore[misc]  # aiortc is seen as untyped
    """What a peer sends. Of video, only the newest frame waits to be taken.

    aiortc keeps every frame, so that a slow consumer sees an ever older picture.
    """

    def __init__(
        self,
        kind: str,
        id: str | None = None,  # noqa: A002 - aiortc's name for it
        *,
        corrections: Corrections,
    ) -> None:
        super().__init__(kind, id)
        self.received = ReceivedFrames() if corrections.stamps else None
        """When each frame came in; None: nobody keeps count."""
        limit = 1 if kind == "video" else MAX_AUDIO_FRAMES
        self._queue = NewestQueue(limit if corrections.bounded_queues else 0, self.received)

    @property
    def dropped(self) -> int:
        """Frames that nobody took in time."""
        return self._queue.dropped

    def put(self, item: Any) -> None:
        """Add what needs no decoder, on the loop."""
        self._queue.put_newest(item)


class DecoderQueue(queue.SimpleQueue[Any]):
    """Compressed frames on their way to the decoder's thread, ``None`` at the end.

    Every frame has to be decoded, for the next refers to it, but for those before a key
    frame. ``None`` overtakes them all, so that nobody waits for a backlog.
    """

    def __init__(self, on_overflow: Callable[[], None]) -> None:
        super().__init__()
        self._on_overflow = on_overflow

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add a frame or the end; never waits. With no room, drop all and say so."""
        if item is None or getattr(item[1], "is_key_frame", False):
            self._clear()
        elif self.qsize() >= MAX_UNDECODED_FRAMES:
            self._clear()
            self._on_overflow()
            return
        super().put(item, block, timeout)

    def _clear(self) -> None:
        try:
            while True:
                self.get_nowait()
        except queue.Empty:
            return


class _Intake:
    """Stands where aiortc keeps its jitter buffer; frames leave through the receiver."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def add(self, packet: Any) -> tuple[bool, None]:
        self._receiver.take_packet(packet)
        return False, None


class _Arrivals:
    """Stands where aiortc keeps its list of missing packets; the receiver asks by itself."""

    missing: frozenset[int] = frozenset()

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def add(self, packet: Any) -> bool:
        self._receiver.note_arrival(packet)
        return False


class Receiver(RTCRtpReceiver):  # type: ignore[misc]  # aiortc is seen as untyped
    """Receives one audio or video stream."""

    def __init__(self, kind: str, transport: Any, corrections: Corrections) -> None:
        super().__init__(kind, transport)
        self.counters = ReceiveCounters()
        self._RTCRtpReceiver__timestamp_mapper: Any = Timestamps()
        self._media_ssrc: int | None = None
        self._feedback_task: asyncio.Task[None] | None = None
        self._sooner = asyncio.Event()
        self._armed_s: float | None = None
        if corrections.bounded_queues:
            self._bound_streams()
        self._jitter_buffer: JitterBuffer | None = None
        self._nacks: NackRequests | None = None
        self._key_frames: KeyFrameRequests | None = None
        if kind != "video":
            if corrections.sound:
                self._RTCRtpReceiver__jitter_buffer: Any = opus.Intake(
                    self._RTCRtpReceiver__timestamp_mapper.map, self._put_sound
                )
            return
        if corrections.jitter_buffer:
            self._jitter_buffer = JitterBuffer()
            self._RTCRtpReceiver__jitter_buffer = _Intake(self)
        if corrections.feedback:
            self._nacks = NackRequests()
            self._key_frames = KeyFrameRequests()
            self._RTCRtpReceiver__nack_generator = _Arrivals(self)
        if corrections.bounded_queues:
            self._RTCRtpReceiver__decoder_queue = DecoderQueue(self._overflowed)

    def _bound_streams(self) -> None:
        self._RTCRtpReceiver__remote_streams: Any = NewestStreams()
        self._RTCRtpReceiver__active_ssrc: Any = NewestStreams()
        estimator = self._RTCRtpReceiver__remote_bitrate_estimator
        if estimator is not None:
            estimator.ssrcs = NewestStreams()
        router = self.transport._rtp_router
        if not isinstance(router.ssrc_table, NewestStreams):
            router.ssrc_table = NewestStreams(router.ssrc_table)

    def _put_sound(self, packet: Any) -> None:
        self._track.put(packet)

    async def receive(self, parameters: Any) -> None:
        """Start, as aiortc does, and with it the task that asks for what is lost."""
        await super().receive(parameters)
        if self._feedback_task is None and (self._jitter_buffer or self._nacks):
            self._feedback_task = asyncio.create_task(self._run_feedback(), name="feedback")

    async def stop(self) -> None:
        """Stop for good."""
        if self._feedback_task is not None:
            self._feedback_task.cancel()
            await asyncio.wait([self._feedback_task])
        await super().stop()

    def note_arrival(self, packet: Any) -> None:
        """Count a packet, new or sent again, among those that are there."""
        assert self._nacks is not None
        assert self._key_frames is not None
        self._media_ssrc = packet.ssrc
        now_s = time.perf_counter()
        self._nacks.insert(packet.sequence_number, now_s)
        self._key_frames.packet_arrived(now_s)
        if self._jitter_buffer is None and self._key_start(packet) is KeyStart.YES:
            self._key_frames.key_frame_arrived()
        self._arm()

    def take_packet(self, packet: Any) -> None:
        """Pass on every frame that a packet completes."""
        assert self._jitter_buffer is not None
        self._media_ssrc = packet.ssrc
        now_s = time.perf_counter()
        frames = self._jitter_buffer.insert(packet, self._key_start(packet), now_s)
        codec = self._RTCRtpReceiver__codecs[packet.payload_type]
        for frame in frames:
            self._decode(codec, frame, now_s)
        self._note_key_frames(frames)
        self._arm()

    def _key_start(self, packet: Any) -> KeyStart:
        codec = self._RTCRtpReceiver__codecs[packet.payload_type]
        return find_key_start(codec.name.upper(), packet.payload)

    def _decode(self, codec: RTCRtpCodecParameters, frame: EncodedFrame, now_s: float) -> None:
        assert self._jitter_buffer is not None
        is_cut_off = self._jitter_buffer.waits_for_key_frame  # by an overflow just now
        if is_cut_off or not self._RTCRtpReceiver__decoder_thread:
            return
        frame.timestamp = self._RTCRtpReceiver__timestamp_mapper.map(frame.timestamp)
        received = getattr(self._track, "received", None)
        if received is not None:
            received.complete(frame.timestamp, now_s)
        self._RTCRtpReceiver__decoder_queue.put((codec, frame))

    def _overflowed(self) -> None:
        """The decoder is too slow: go on at the next key frame."""
        self.counters.overflows += 1
        if self._jitter_buffer is not None:
            self._jitter_buffer.skip_gap()
        else:
            self._RTCRtpReceiver__decoder_error.set()  # for which aiortc sends a PLI

    def _note_key_frames(self, frames: list[EncodedFrame]) -> None:
        assert self._jitter_buffer is not None
        if self._key_frames is None:
            return
        if any(frame.is_key_frame for frame in frames):
            self._key_frames.key_frame_arrived()
        if self._jitter_buffer.waits_for_key_frame:
            self._key_frames.want()

    async def _send_rtcp_pli(self, media_ssrc: int) -> None:
        """Ask for a key frame; what aiortc calls, after a decoder's error for one."""
        if self._key_frames is None:
            self.counters.key_frames_asked += 1
            await super()._send_rtcp_pli(media_ssrc)
        else:
            self._key_frames.want()
            self._arm()

    def _gap_limit_s(self) -> float:
        """Return how long a lost packet is worth waiting for."""
        if self._nacks is None:
            return MAX_GAP_S
        return min(MAX_GAP_S, MAX_NACKS * self._nacks.interval_s)

    def _next_s(self) -> float | None:
        """Return when something is to be asked for or given up; None: not as it stands."""
        times_s = []
        if self._jitter_buffer is not None:
            since_s = self._jitter_buffer.gap_since_s()
            times_s.append(None if since_s is None else since_s + self._gap_limit_s())
        if self._nacks is not None and self._key_frames is not None:
            times_s += [self._nacks.next_s(), self._key_frames.next_s()]
        return min((time_s for time_s in times_s if time_s is not None), default=None)

    def _arm(self) -> None:
        """Wake the task if there is something to do sooner than it knows of."""
        next_s = self._next_s()
        if next_s is not None and (self._armed_s is None or next_s < self._armed_s):
            self._armed_s = next_s
            self._sooner.set()

    async def _run_feedback(self) -> None:
        """Ask for lost packets and key frames, and give up gaps, each when it is due."""
        try:
            while True:
                self._armed_s = self._next_s()
                await self._wait_until(self._armed_s)
                await self._send_feedback()
        except Exception:
            logger.exception("the feedback to a sender has ended; its losses stay")

    async def _wait_until(self, time_s: float | None) -> None:
        """Wait for a time, or for :meth:`_arm` to bring another one."""
        self._sooner.clear()
        delay_s = None if time_s is None else max(0.0, time_s - time.perf_counter())
        try:
            async with asyncio.timeout(delay_s):
                await self._sooner.wait()
        except TimeoutError:
            return

    async def _send_feedback(self) -> None:
        now_s = time.perf_counter()
        if self._jitter_buffer is not None:
            await self._skip_gap(self._jitter_buffer, now_s)
        if self._nacks is None or self._key_frames is None or self._media_ssrc is None:
            return
        due = self._nacks.take_due(now_s)
        if due:
            self.counters.nacks += len(due)
            await self._send_rtcp_nack(self._media_ssrc, due)
        if self._key_frames.take_due(now_s):
            self.counters.key_frames_asked += 1
            await super()._send_rtcp_pli(self._media_ssrc)

    async def _skip_gap(self, jitter_buffer: JitterBuffer, now_s: float) -> None:
        since_s = jitter_buffer.gap_since_s()
        if since_s is None or now_s < since_s + self._gap_limit_s():
            return
        jitter_buffer.skip_gap()
        self.counters.gaps_skipped += 1
        if self._media_ssrc is not None:
            await self._send_rtcp_pli(self._media_ssrc)
