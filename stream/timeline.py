"""Timeline: a sender's timestamps on the server's clock."""

from __future__ import annotations

from collections import deque
from statistics import median

_MEDIAN_OF = 60
# A smaller shift is neither seen nor heard; a larger one is a clock that drifts.
_DEAD_BAND_S = 0.020
# No network holds a packet back for so long: it is a clock that begins anew.
_NEW_CLOCK_S = 5.0


class Timeline:
    """Places what has a sender's timestamp at the time when such things arrive here.

    A camera and a microphone count each by a clock of its own, evenly; what they send at the
    same moment arrives at the same moment, give or take the network's wavering. So each keeps
    its own even distances, and both lie where the median of their arrivals is.
    """

    def __init__(self) -> None:
        self._leads_s: deque[float] = deque(maxlen=_MEDIAN_OF)
        self._offset_s = 0.0
        self._last_s: float | None = None

    def place(self, own_s: float, arrived_s: float, step_s: float, *, is_own: bool = True) -> float:
        """Return when something happened, in ``time.perf_counter()``; later each time.

        Args:
            own_s: the sender's timestamp.
            arrived_s: when it arrived.
            step_s: how much later than the one before it is at least.
            is_own: False: the timestamp is not that of what arrived, but borrowed.
        """
        if is_own or not self._leads_s:
            self._note(arrived_s - own_s)
        at_s = own_s + self._offset_s
        if self._last_s is not None:
            at_s = max(at_s, self._last_s + step_s)
        self._last_s = at_s
        return at_s

    def _note(self, lead_s: float) -> None:
        if self._leads_s and abs(lead_s - self._offset_s) > _NEW_CLOCK_S:
            self._leads_s.clear()
        self._leads_s.append(lead_s)
        middle_s = median(self._leads_s)
        if len(self._leads_s) == 1 or abs(middle_s - self._offset_s) > _DEAD_BAND_S:
            self._offset_s = middle_s
