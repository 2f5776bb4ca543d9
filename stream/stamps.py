"""When a frame passed which stage of the network path, by its pts.

A frame keeps its pts, in ticks of 1/90000 s, from the decoder to the encoder, so that the
stages of the way in and of the way out can be put together. All times are
``time.perf_counter()``.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

# Two seconds at 60 frames a second; older frames were never asked about.
CAPACITY_FRAMES = 128


@dataclass(frozen=True, slots=True)
class SentFrame:
    """The way out of one frame."""

    pts: int
    """90 kHz."""
    encoded_s: float
    """When the encoder was done."""
    sent_s: float
    """When its last packet was handed to the socket."""
    round_trip_s: float | None = None
    """From here to the receiver and back, smoothed; None: it has not reported yet."""


@dataclass(slots=True)
class ReceivedFrame:
    """The way in of one frame."""

    complete_s: float
    """When its last packet had arrived."""
    decoded_s: float | None = None
    """When the decoder was done; None: it is at work, or gave out nothing."""


class ReceivedFrames:
    """The newest frames of one track. Written by the loop and by the decoder's thread."""

    def __init__(self) -> None:
        self._frames: OrderedDict[int, ReceivedFrame] = OrderedDict()

    def complete(self, pts: int, now_s: float) -> None:
        """Note that a frame's last packet is there."""
        self._frames[pts] = ReceivedFrame(now_s)
        while len(self._frames) > CAPACITY_FRAMES:
            self._frames.popitem(last=False)

    def decoded(self, pts: int | None, now_s: float) -> None:
        """Note that the decoder gave a frame out."""
        frame = self._frames.get(pts) if pts is not None else None
        if frame is not None:
            frame.decoded_s = now_s

    def get(self, pts: int | None) -> ReceivedFrame | None:
        """Return what is known of a frame; None: too old, or not from this track."""
        return self._frames.get(pts) if pts is not None else None
