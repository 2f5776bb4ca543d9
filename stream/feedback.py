"""What a receiver asks its sender for again: lost packets and key frames (RFC 4585).

aiortc asks once for each lost packet, so that a lost answer freezes the picture; and once
for a key frame, or for every packet that misses one. These two keep asking by the clock,
and not too often. They read no clock and send nothing themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

from stream.jitterbuffer import extend

MAX_NACKS = 5
"""How often a lost packet is asked for (libwebrtc asks ten times)."""
# More is not a loss to be repaired but an interruption: a key frame is cheaper.
MAX_MISSING = 256
# A jump this far is another stream's numbering.
MAX_JUMP = 1024
# Neither a scheduling hiccup nor a wrong guess of the round trip may cause a flood.
MIN_NACK_INTERVAL_S = 0.020
MAX_NACK_INTERVAL_S = 0.100
FIRST_ROUND_TRIP_S = 0.050
ROUND_TRIP_ALPHA = 1 / 8  # RFC 6298, section 2.3

KEY_FRAME_INTERVAL_S = 0.300
"""libwebrtc's encoders answer no more often either."""
# A stream begins with a key frame by itself, unless we join it late.
FIRST_KEY_FRAME_S = 0.100


@dataclass(slots=True)
class _Missing:
    asked: int
    first_asked_s: float
    next_s: float


class NackRequests:
    """The packets that are missing, and when to ask for which."""

    def __init__(self) -> None:
        self.round_trip_time_s = FIRST_ROUND_TRIP_S
        self._highest: int | None = None
        # By unwrapped sequence number, lowest first.
        self._missing: dict[int, _Missing] = {}

    @property
    def interval_s(self) -> float:
        """How long an answer is waited for: about one round trip."""
        return min(max(self.round_trip_time_s, MIN_NACK_INTERVAL_S), MAX_NACK_INTERVAL_S)

    def insert(self, sequence_number: int, now_s: float) -> None:
        """Note a packet that has arrived, for the first time or again."""
        if self._highest is None:
            self._highest = sequence_number
            return
        number = extend(sequence_number, self._highest)
        if abs(number - self._highest) > MAX_JUMP:
            self._missing.clear()
            self._highest = number
        elif number > self._highest:
            for missing in range(self._highest + 1, number):
                self._missing[missing] = _Missing(0, now_s, now_s)
            self._highest = number
            while len(self._missing) > MAX_MISSING:
                del self._missing[next(iter(self._missing))]
        else:
            self._arrived(number, now_s)

    def next_s(self) -> float | None:
        """Return when :meth:`take_due` has something to return next."""
        return min((missing.next_s for missing in self._missing.values()), default=None)

    def take_due(self, now_s: float) -> list[int]:
        """Return the sequence numbers to ask for now; they count as asked."""
        due = []
        for number, missing in list(self._missing.items()):
            if missing.next_s > now_s:
                continue
            if missing.asked == MAX_NACKS:
                del self._missing[number]
                continue
            if missing.asked == 0:
                missing.first_asked_s = now_s
            missing.asked += 1
            missing.next_s = now_s + self.interval_s
            due.append(number & 0xFFFF)
        return due

    def _arrived(self, number: int, now_s: float) -> None:
        missing = self._missing.pop(number, None)
        # After several questions nobody knows which one was answered. From the first, the
        # estimate is rather too long; from the last, a long way would be asked for ever.
        if missing is not None and missing.asked:
            took_s = now_s - missing.first_asked_s
            self.round_trip_time_s += ROUND_TRIP_ALPHA * (took_s - self.round_trip_time_s)


class KeyFrameRequests:
    """Whether a key frame is wanted, and when to ask for it."""

    def __init__(self) -> None:
        # A decoder can begin with nothing else.
        self.is_wanted = True
        self._next_s: float | None = None
        # A sender that is silent cannot be hurried.
        self._heard_since_asking = False

    def want(self) -> None:
        """Ask until :meth:`key_frame_arrived`."""
        self.is_wanted = True

    def packet_arrived(self, now_s: float) -> None:
        """Note that the sender is there."""
        self._heard_since_asking = True
        if self._next_s is None:
            self._next_s = now_s + FIRST_KEY_FRAME_S

    def key_frame_arrived(self) -> None:
        """Stop asking."""
        self.is_wanted = False

    def next_s(self) -> float | None:
        """Return when to ask next; None: not before something arrives."""
        return self._next_s if self.is_wanted and self._heard_since_asking else None

    def take_due(self, now_s: float) -> bool:
        """Tell whether to ask now; it counts as asked."""
        next_s = self.next_s()
        if next_s is None or now_s < next_s:
            return False
        self._heard_since_asking = False
        self._next_s = now_s + KEY_FRAME_INTERVAL_S
        return True
