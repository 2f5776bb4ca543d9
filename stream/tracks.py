"""What a peer receives."""

from __future__ import annotations

import time

from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av import VideoFrame

from stream.feed import Finished
from stream.latest import Latest, SlotClosed
from stream.stamps import SentFrame
from stream.stats import SessionStats


class TranslatedTrack(MediaStreamTrack):  # type: ignore[misc]
    """Gives the newest finished frame to aiortc's encoder, with the input's pts."""

    kind = "video"

    def __init__(self, outbox: Latest[Finished], stats: SessionStats) -> None:
        super().__init__()
        self._outbox = outbox
        self._stats = stats
        # pts of the frame that is being encoded, and when it was handed over.
        self._handed: tuple[int | None, float] | None = None

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
        frame = finished.frame
        now_s = time.perf_counter()
        self._stats.sent((now_s - finished.arrived.arrived_s) * 1000)
        self._handed = (frame.pts, now_s)
        return frame

    def note_sent(self, sent: SentFrame) -> None:
        """Take the times of the frame that :meth:`recv` gave last; called by the sender.

        aiortc does not ask for a frame before the one before it is sent, so one is enough
        to remember.
        """
        if self._handed is not None and self._handed[0] == sent.pts:
            self._stats.stage("encode", (sent.encoded_s - self._handed[1]) * 1000)
            self._stats.stage("send", (sent.sent_s - sent.encoded_s) * 1000)

    def stop(self) -> None:
        """End the track; a :meth:`recv` that waits raises."""
        super().stop()
        self._outbox.close()
