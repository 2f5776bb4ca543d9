"""RTP timestamps without their wrap, whatever order they come in."""

from __future__ import annotations


class Timestamps:
    """Maps 32-bit timestamps to numbers that begin with 0 and do not wrap.

    aiortc's takes every step back for a wrap, and leaps by 2**32. An encoder with B-frames
    sends in the order of decoding, where steps back are common.
    """

    def __init__(self) -> None:
        self._last: int | None = None
        self._mapped = 0

    def map(self, timestamp: int) -> int:
        """Return the number nearest to the last one that stands for ``timestamp``."""
        last = timestamp if self._last is None else self._last
        self._mapped += ((timestamp - last + 2**31) & 0xFFFFFFFF) - 2**31
        self._last = timestamp
        return self._mapped
