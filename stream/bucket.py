"""A token bucket: so many at once, and so many a second from then on."""

from __future__ import annotations


class Bucket:
    """Full at first; without a lock, and without a clock of its own."""

    __slots__ = ("_at_s", "_burst", "_per_second", "_tokens")

    def __init__(self, burst: int, per_second: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._tokens = float(burst)
        self._at_s: float | None = None

    def take(self, now_s: float) -> float:
        """Take one token.

        Returns:
            0, or for how many seconds there is none; nothing is taken then.
        """
        passed_s = 0.0 if self._at_s is None else now_s - self._at_s
        self._at_s = now_s
        self._tokens = min(float(self._burst), self._tokens + passed_s * self._per_second)
        if self._tokens < 1:
            return (1 - self._tokens) / self._per_second
        self._tokens -= 1
        return 0.0
