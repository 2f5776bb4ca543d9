"""The sending end: aiortc's, with the times of each frame, and for shared encoders."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from aiortc import RTCRtpSender
from aiortc.codecs.base import Encoder

from stream.stamps import SentFrame


class Sender(RTCRtpSender):  # type: ignore[misc]  # aiortc is seen as untyped
    """Sends one audio or video stream and says when each frame of video has left."""

    def __init__(self, track_or_kind: Any, transport: Any) -> None:
        super().__init__(track_or_kind, transport)
        self.on_sent: Callable[[SentFrame], None] | None = None
        """Called on the event loop after a frame's last packet."""
        self.nacks_received = 0
        """Packets that the receiver has asked for again."""
        self.key_frames_wanted = 0
        """How often it has asked for a key frame."""
        self._encoded: tuple[int, float] | None = None
        self._want_key_frame: Callable[[], None] | None = None

    def take_encoded(self, encoder: Encoder, want_key_frame: Callable[[], None]) -> None:
        """Prepare for a track that gives packets.

        Args:
            encoder: cuts them, and is told what the receiver says of the network.
            want_key_frame: called when the receiver needs one.
        """
        self._RTCRtpSender__encoder = encoder
        self._want_key_frame = want_key_frame

    def _send_keyframe(self) -> None:
        self.key_frames_wanted += 1
        if self._want_key_frame is not None:
            self._want_key_frame()
        else:
            super()._send_keyframe()

    async def _retransmit(self, sequence_number: int) -> None:
        self.nacks_received += 1
        await super()._retransmit(sequence_number)

    async def _next_encoded_frame(self, codec: Any) -> Any:
        # aiortc comes back for the next frame when all packets of the last one have left.
        if self._encoded is not None and self.on_sent is not None:
            pts, encoded_s = self._encoded
            round_trip_s = self._RTCRtpSender__rtt
            self.on_sent(SentFrame(pts, encoded_s, time.perf_counter(), round_trip_s))
        self._encoded = None
        encoded = await super()._next_encoded_frame(codec)
        if encoded is not None and self.kind == "video":
            self._encoded = (encoded.timestamp, time.perf_counter())
        return encoded
