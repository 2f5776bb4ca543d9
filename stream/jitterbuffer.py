"""Packets in, whole video frames out.

aiortc's buffer completes a frame when the next one begins, which costs one frame interval;
gives out one frame per packet, so that a backlog stays; and waits for 512 packets before
it passes over a lost one, which freezes the picture for seconds. This one reads the marker
bit, gives out all that is complete, and waits for a lost packet by the clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from stream.keyframes import KeyStart

# At 4 Mb/s and 1200 bytes a packet, two and a half seconds.
CAPACITY_PACKETS = 1024
# A sender that starts again with lower numbers sends nothing but latecomers for this long.
MAX_LATE_S = 1.0


class Packet(Protocol):
    """What the buffer reads of aiortc's ``RtpPacket``."""

    sequence_number: int
    timestamp: int
    marker: int
    ssrc: int
    _data: bytes
    """The payload without the codec's payload header."""


@dataclass(slots=True)
class EncodedFrame:
    """One whole compressed frame, in the form that aiortc's decoders take."""

    data: bytes
    timestamp: int
    """90 kHz: of RTP when it leaves the buffer, the frame's pts from then on."""
    is_key_frame: bool


def extend(sequence_number: int, near: int) -> int:
    """Return the unwrapped number, nearest to ``near``, of a 16-bit sequence number."""
    return near + ((sequence_number - near + 0x8000) & 0xFFFF) - 0x8000


class JitterBuffer:
    """Puts packets in order and gives out frames as soon as their last packet is there.

    Reads no clock and sends nothing: the caller passes the time and obeys
    :attr:`waits_for_key_frame` and :meth:`gap_since_s`.
    """

    def __init__(self) -> None:
        # By unwrapped sequence number, like all that follows.
        self._packets: dict[int, Packet] = {}
        # The packet that the next frame begins with; None: only a key frame can be next.
        self._next: int | None = None
        self._highest = 0
        self._ssrc: int | None = None
        # Holes, lowest first, and when each was noticed.
        self._missing_since_s: dict[int, float] = {}
        # RTP timestamp of a key frame → its first packet.
        self._key_starts: dict[int, int] = {}
        # Since when every packet has come late.
        self._late_since_s: float | None = None

    @property
    def waits_for_key_frame(self) -> bool:
        """Whether nothing can be given out before a key frame arrives."""
        return self._next is None

    def gap_since_s(self) -> float | None:
        """Return since when a lost packet holds up later ones; None: none does."""
        if self._next is None:
            return None
        return next(iter(self._missing_since_s.values()), None)

    def insert(self, packet: Packet, key_start: KeyStart, now_s: float) -> list[EncodedFrame]:
        """Take a packet and return every frame that is complete now, oldest first.

        Late packets and duplicates change nothing.
        """
        if packet.ssrc != self._ssrc:
            self._restart(packet)
        number = extend(packet.sequence_number, self._highest)
        if number > self._highest + CAPACITY_PACKETS:
            self._restart(packet)
            number = packet.sequence_number
        if number in self._packets or self._is_late(number):
            self._late_since_s = self._late_since_s or now_s
            if now_s - self._late_since_s < MAX_LATE_S:
                return []
            self._restart(packet)
            number = packet.sequence_number
        self._late_since_s = None
        is_last = number > self._highest
        self._store(number, packet, key_start, now_s)
        previous = self._packets.get(number - 1)
        if (
            is_last
            and not packet.marker
            and previous is not None
            and previous.timestamp == packet.timestamp
        ):
            return []  # in the middle of a frame: it completes nothing
        return self._release()

    def skip_gap(self) -> None:
        """Give up what is missing; go on at the next key frame."""
        self._next = None

    def _restart(self, packet: Packet) -> None:
        """Begin with a new stream of packets."""
        self._packets.clear()
        self._missing_since_s.clear()
        self._key_starts.clear()
        self._next = None
        self._ssrc = packet.ssrc
        self._highest = packet.sequence_number - 1

    def _is_late(self, number: int) -> bool:
        floor = self._highest - CAPACITY_PACKETS if self._next is None else self._next - 1
        return number <= floor

    def _store(self, number: int, packet: Packet, key_start: KeyStart, now_s: float) -> None:
        for missing in range(self._highest + 1, number):
            self._missing_since_s[missing] = now_s
        self._missing_since_s.pop(number, None)
        self._packets[number] = packet
        if number > self._highest:
            self._drop(range(self._highest - CAPACITY_PACKETS + 1, number - CAPACITY_PACKETS + 1))
            self._highest = number
        if key_start is KeyStart.YES or (
            key_start is KeyStart.IF_FIRST and self._is_first(number, packet)
        ):
            known = self._key_starts.get(packet.timestamp, number)
            self._key_starts[packet.timestamp] = min(known, number)

    def _is_first(self, number: int, packet: Packet) -> bool:
        previous = self._packets.get(number - 1)
        return number == self._next or (
            previous is not None and previous.timestamp != packet.timestamp
        )

    def _drop(self, numbers: range) -> None:
        """Forget packets, given out or given up."""
        for number in numbers:
            self._packets.pop(number, None)
            self._missing_since_s.pop(number, None)
        if self._next is not None and self._next < numbers.stop:
            self.skip_gap()
        if self._key_starts:
            self._key_starts = {
                timestamp: start
                for timestamp, start in self._key_starts.items()
                if start >= numbers.stop
            }

    def _release(self) -> list[EncodedFrame]:
        frames = []
        while (joined := self._next_frame()) is not None:
            frame, start, end = joined
            if self._next is None or start > self._next:
                # A key frame makes everything before it worthless.
                lowest = min(self._packets)
                self._missing_since_s = {
                    n: since for n, since in self._missing_since_s.items() if n >= end
                }
            else:
                lowest = self._next
            self._next = end
            self._drop(range(lowest, end))
            frames.append(frame)
        return frames

    def _next_frame(self) -> tuple[EncodedFrame, int, int] | None:
        """Return the frame to give out next with its first packet and the one after it."""
        if self._next is not None:
            start = self._next
            while start in self._packets and not self._packets[start]._data:  # padding
                start += 1
            padding = range(self._next, start)
            self._next = start
            self._drop(padding)
            joined = self._join(start)
            if joined is not None:
                return joined
        for start in sorted(self._key_starts.values()):
            if start != self._next:
                joined = self._join(start)
                if joined is not None:
                    return joined
        return None

    def _join(self, start: int) -> tuple[EncodedFrame, int, int] | None:
        """Join packets from ``start`` to the marker, or to a change of timestamp."""
        first = self._packets.get(start)
        if first is None:
            return None
        parts = []
        number = start
        while (packet := self._packets.get(number)) is not None:
            if packet.timestamp != first.timestamp:
                break
            parts.append(packet._data)
            number += 1
            if packet.marker:
                break
        else:
            return None
        is_key_frame = first.timestamp in self._key_starts
        return EncodedFrame(b"".join(parts), first.timestamp, is_key_frame), start, number
