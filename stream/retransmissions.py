"""Which of the packets that a receiver asks for again are sent again.

aiortc sends every one each time it is asked for. Over a link that is too narrow the receiver
misses most packets and asks for each up to ten times: the answers alone then fill the link,
and keep it full long after the encoder has stepped down.
"""

from __future__ import annotations

from collections import deque

WINDOW_S = 1.0
MOST = 0.5
"""Of what was sent in the window, what may be sent again where the network has room."""
LEAST = 0.1
"""The same where it has none: enough for the losses of a bad radio."""
FREE_BYTES = 2_400
"""Two packets, which a quiet stream may always send again; more would be a fifth of what a link of
150 kb/s carries, and keep it jammed."""

FIRST_ROUND_TRIP_S = 0.050
MIN_ROUND_TRIP_S = 0.020
MAX_ROUND_TRIP_S = 0.300
# As many as aiortc keeps to be sent again.
_REMEMBERED = 128


class Window:
    """How many bytes there were in the last second."""

    def __init__(self) -> None:
        self._sizes: deque[tuple[float, int]] = deque()
        self._total_bytes = 0

    def add(self, size_bytes: int, now_s: float) -> None:
        """Count some."""
        self._sizes.append((now_s, size_bytes))
        self._total_bytes += size_bytes
        self.total_bytes(now_s)

    def total_bytes(self, now_s: float) -> int:
        """Return what is left of them in the window."""
        while self._sizes and self._sizes[0][0] <= now_s - WINDOW_S:
            self._total_bytes -= self._sizes.popleft()[1]
        return self._total_bytes


class Retransmissions:
    """Decides for one stream of video; reads no clock and sends nothing."""

    def __init__(self) -> None:
        self._sent = Window()
        self._sent_again = Window()
        # When a packet was last sent again, by its place in aiortc's history.
        self._last_s: dict[int, tuple[int, float]] = {}

    def note_sent(self, size_bytes: int, now_s: float) -> None:
        """Count what is sent for the first time."""
        self._sent.add(size_bytes, now_s)

    def take(
        self,
        sequence_number: int,
        size_bytes: int,
        now_s: float,
        estimate_bps: int | None = None,
        round_trip_s: float | None = None,
    ) -> bool:
        """Tell whether a packet is to be sent again; it counts as sent then.

        Args:
            sequence_number: of the packet.
            size_bytes: of it.
            now_s: a steady clock, in seconds.
            estimate_bps: what the receiver says that the network carries; None: nothing yet.
            round_trip_s: how long an answer is under way; None: not known.
        """
        place = sequence_number % _REMEMBERED
        number, last_s = self._last_s.get(place, (None, 0.0))
        way_s = FIRST_ROUND_TRIP_S if round_trip_s is None else round_trip_s
        way_s = min(max(way_s, MIN_ROUND_TRIP_S), MAX_ROUND_TRIP_S)
        if number == sequence_number and now_s - last_s < way_s:
            return False  # the answer before is on its way
        if self._sent_again.total_bytes(now_s) + size_bytes > self._room_bytes(now_s, estimate_bps):
            return False
        self._sent_again.add(size_bytes, now_s)
        self._last_s[place] = (sequence_number, now_s)
        return True

    def _room_bytes(self, now_s: float, estimate_bps: int | None) -> float:
        sent_bytes = self._sent.total_bytes(now_s)
        room_bytes = MOST * sent_bytes
        if estimate_bps is not None:
            left_bytes = estimate_bps * WINDOW_S / 8 - sent_bytes
            room_bytes = max(LEAST * sent_bytes, min(room_bytes, left_bytes))
        return max(room_bytes, FREE_BYTES)
