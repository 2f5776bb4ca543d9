"""What a peer receives."""

from __future__ import annotations

import time

from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av import Packet, VideoFrame
from av.stream import Stream

from stream.encodings import Watcher
from stream.feed import Finished
from stream.latest import Latest, SlotClosed
from stream.sound import PictureDelay
from stream.stamps import SentFrame
from stream.stats import SessionStats, Travel


class PictureTrack(MediaStreamTrack):  # type: ignore[misc]  # aiortc is seen as untyped
    """A video track that knows how old its pictures are when they leave."""

    kind = "video"

    def __init__(self, stats: SessionStats, delay: PictureDelay) -> None:
        super().__init__()
        self._stats = stats
        self._delay = delay
        # The frame that is being encoded or sent, and when the encoder got it.
        self._handed: tuple[Finished, float] | None = None

    def note_sent(self, sent: SentFrame) -> None:
        """Take the times of the frame that :meth:`recv` gave last; called by the sender.

        aiortc does not ask for a frame before the one before it is sent, so one is enough
        to remember.
        """
        if self._handed is None or self._handed[0].frame.pts != sent.pts:
            return
        finished, taken_s = self._handed
        self._stats.stage("encode", (sent.encoded_s - taken_s) * 1000)
        self._stats.stage("send", (sent.sent_s - sent.encoded_s) * 1000)
        arrived = finished.arrived
        here_s = sent.sent_s - (arrived.complete_s or arrived.arrived_s)
        self._stats.passed(here_s * 1000, is_repeat=finished.is_repeat)
        if finished.is_repeat:
            return
        self._delay.note(here_s)
        way_ms = (here_s + (sent.round_trip_s or 0.0)) * 1000
        stages_ms = finished.stages_ms if finished.is_translated else None
        self._stats.travelled(Travel.of(sent.sent_s, way_ms, stages_ms))

    def _hand_over(self, finished: Finished, taken_s: float) -> None:
        if not finished.is_repeat:
            self._stats.sent((taken_s - finished.arrived.arrived_s) * 1000)
        self._handed = (finished, taken_s)


class TranslatedTrack(PictureTrack):
    """Gives the newest finished frame to aiortc's encoder, with the input's pts."""

    def __init__(self, outbox: Latest[Finished], stats: SessionStats, delay: PictureDelay) -> None:
        super().__init__(stats, delay)
        self._outbox = outbox

    async def recv(self) -> VideoFrame:
        """Wait for the next frame.

        Raises:
            MediaStreamError: the track has ended.
        """
        if self.readyState != "live":
            raise MediaStreamError("the track has ended")
        try:
            finished = await self._outbox.get()
        except SlotClosed:
            self.stop()
            raise MediaStreamError("the track has ended") from None
        self._hand_over(finished, time.perf_counter())
        return finished.frame

    def stop(self) -> None:
        """End the track; a :meth:`recv` that waits raises."""
        super().stop()
        self._outbox.close()


class EncodedTrack(PictureTrack):
    """Gives one viewer's share of the encodings to aiortc, which only has to send it."""

    def __init__(self, watcher: Watcher, stats: SessionStats, delay: PictureDelay) -> None:
        super().__init__(stats, delay)
        self._watcher = watcher

    async def recv(self) -> Packet[Stream]:
        """Wait for the next encoded frame; it ends with the sender's task."""
        picture = await self._watcher.get()
        self._hand_over(picture.finished, picture.taken_s)
        return picture.packet
