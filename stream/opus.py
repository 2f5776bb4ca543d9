"""Sound that comes in: in order, at once, and as it was encoded.

aiortc gives sound out 80 ms late, and after a lost packet 320 ms late, for ever; then it
decodes what would only be encoded again. What is sent on needs neither.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Protocol

import av

from stream.jitterbuffer import extend

TIME_BASE = Fraction(1, 48000)
"""Of Opus in RTP, whatever its own rate (RFC 7587, section 4.1)."""
# 60 ms; what is missing then will not come in time.
MAX_OVERTAKING_PACKETS = 3
# A jump this far is a sender that begins again.
MAX_JUMP = 1000


# By the packet's first byte (RFC 6716, section 3.1, table 2).
_SILK_MS = (10, 20, 40, 60)
_HYBRID_MS = (10, 20)
_CELT_MS = (2.5, 5, 10, 20)


def to_duration_s(data: bytes) -> float:
    """Return how long an Opus packet sounds."""
    if not data:
        return 0.0
    config, code = data[0] >> 3, data[0] & 3
    if config < 12:
        frame_ms: float = _SILK_MS[config % 4]
    elif config < 16:
        frame_ms = _HYBRID_MS[config % 2]
    else:
        frame_ms = _CELT_MS[config % 4]
    counts = (1, 2, 2, data[1] & 0x3F if len(data) > 1 else 0)
    return frame_ms * counts[code] / 1000


class Packet(Protocol):
    """What is read of aiortc's ``RtpPacket``."""

    sequence_number: int
    timestamp: int
    ssrc: int
    _data: bytes


class PacketOrder:
    """Puts packets in order and gives each out at once; a lost one is soon given up."""

    def __init__(self) -> None:
        # By unwrapped sequence number.
        self._waiting: dict[int, Packet] = {}
        self._next = 0
        self._ssrc: int | None = None

    def insert(self, packet: Packet) -> list[Packet]:
        """Take a packet and return those that can go on now; a late one is dropped."""
        number = extend(packet.sequence_number, self._next)
        if packet.ssrc != self._ssrc or self._next - number > MAX_JUMP:
            self._waiting.clear()
            self._ssrc = packet.ssrc
            self._next = number = packet.sequence_number
        if number < self._next:
            return []
        self._waiting[number] = packet
        if len(self._waiting) > MAX_OVERTAKING_PACKETS:
            self._next = min(self._waiting)
        ready = []
        while (following := self._waiting.pop(self._next, None)) is not None:
            ready.append(following)
            self._next += 1
        return ready


class Intake:
    """Stands where aiortc keeps its jitter buffer; gives out packets as they are."""

    def __init__(self, to_pts: Callable[[int], int], put: Callable[[Any], None]) -> None:
        """Make one.

        Args:
            to_pts: from the RTP timestamp, called in order.
            put: takes an ``av.Packet``.
        """
        self._order = PacketOrder()
        self._to_pts = to_pts
        self._put = put

    def add(self, packet: Any) -> tuple[bool, None]:
        """Take a packet of RTP; never wants a key frame, never has a frame to decode."""
        for ready in self._order.insert(packet):
            if ready._data:
                sound = av.Packet(ready._data)
                sound.pts = self._to_pts(ready.timestamp)
                sound.time_base = TIME_BASE
                self._put(sound)
        return False, None
