"""The sending end: aiortc's, with the times of each frame, and for shared encoders.

What a receiver asks for again it gets, as far as the network has room for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from aiortc import RTCRtpSender
from aiortc.codecs.base import Encoder
from aiortc.rtcrtpsender import RTP_HISTORY_SIZE
from aiortc.utils import uint32_gt

from stream.keyframes import KeyStart, find_key_start
from stream.retransmissions import Retransmissions
from stream.stamps import SentFrame


class Sender(RTCRtpSender):  # type: ignore[misc]  # aiortc is seen as untyped
    """Sends one audio or video stream and says when each frame of video has left."""

    def __init__(self, track_or_kind: Any, transport: Any, *, is_sparing: bool = True) -> None:
        """Make one that does nothing yet.

        Args:
            track_or_kind: as aiortc takes it, like ``transport``.
            transport: see ``track_or_kind``.
            is_sparing: do not send everything again that is asked for.
        """
        super().__init__(track_or_kind, transport)
        self.on_sent: Callable[[SentFrame], None] | None = None
        """Called on the event loop after a frame's last packet."""
        self.nacks_received = 0
        """Packets that the receiver has asked for again."""
        self.key_frames_wanted = 0
        """How often it has asked for a key frame."""
        self._encoded: tuple[int, float] | None = None
        self._retransmissions = Retransmissions() if is_sparing and self.kind == "video" else None
        self._is_key_frame = False
        # RTP timestamp of the last key frame: nobody needs what was before it.
        self._key_timestamp: int | None = None
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
        if self._retransmissions is None or self._is_worth_it(
            self._retransmissions, sequence_number
        ):
            await super()._retransmit(sequence_number)

    def _is_worth_it(self, retransmissions: Retransmissions, sequence_number: int) -> bool:
        packet = self._RTCRtpSender__rtp_history.get(sequence_number % RTP_HISTORY_SIZE)
        if packet is None or packet.sequence_number != sequence_number:
            return False
        if self._key_timestamp is not None and uint32_gt(self._key_timestamp, packet.timestamp):
            return False
        return retransmissions.take(
            sequence_number,
            len(packet.payload),
            time.perf_counter(),
            getattr(self._RTCRtpSender__encoder, "target_bitrate", None),
            self._RTCRtpSender__rtt,
        )

    async def _next_encoded_frame(self, codec: Any) -> Any:
        # aiortc comes back for the next frame when all packets of the last one have left.
        if self._encoded is not None and self.on_sent is not None:
            pts, encoded_s = self._encoded
            round_trip_s = self._RTCRtpSender__rtt
            self.on_sent(SentFrame(pts, encoded_s, time.perf_counter(), round_trip_s))
        self._encoded = None
        if self._is_key_frame:
            self._key_timestamp = self._RTCRtpSender__rtp_timestamp
        encoded = await super()._next_encoded_frame(codec)
        if encoded is not None and self.kind == "video":
            now_s = time.perf_counter()
            self._encoded = (encoded.timestamp, now_s)
            start = find_key_start(codec.name.upper(), encoded.payloads[0])
            self._is_key_frame = start is KeyStart.YES
            if self._retransmissions is not None:
                self._retransmissions.note_sent(sum(map(len, encoded.payloads)), now_s)
        return encoded
