"""What a camera may send: not too large, not too often, not ever another size."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from av import VideoFrame

from stream import frames
from stream.bucket import Bucket

MAX_RATE_HZ = 60
_REFILL_HZ = MAX_RATE_HZ * 1.1
"""A camera of 60 is never quite that."""
_BURST = 30
"""What a network, or this machine, held up for a second comes all at once."""
MAX_RESIZES = 12
RESIZES_WITHIN_S = 10.0
"""Each makes a new encoder, some 30 ms; a browser that adapts takes seconds between two."""


class CameraLimits:
    """Looks at each frame as it comes; used on the event loop, without a clock of its own."""

    def __init__(self, max_pixels: int, notice: Callable[[str, str], None]) -> None:
        """Begin with a camera that has sent nothing.

        Args:
            max_pixels: of one frame.
            notice: told the level and the sentence when the first frame is too many.
        """
        self.thinned = 0
        """Frames that were too many."""
        self.seen_s = time.perf_counter()
        """When the last frame came, or the session began."""
        self._max_pixels = max_pixels
        self._notice = notice
        self._size = (0, 0)
        self._resized_s: deque[float] = deque(maxlen=MAX_RESIZES)
        self._pace = Bucket(_BURST, _REFILL_HZ)

    def find_offence(self, frame: VideoFrame, now_s: float) -> str | None:
        """Return one sentence if a frame is the end of its session; None: it is well."""
        self.seen_s = now_s
        oddity = frames.find_oddity(frame, self._max_pixels)
        if oddity is not None:
            return oddity
        if (frame.width, frame.height) != self._size:
            self._size = (frame.width, frame.height)
            self._resized_s.append(now_s)
            span_s = now_s - self._resized_s[0]
            if len(self._resized_s) == MAX_RESIZES and span_s < RESIZES_WITHIN_S:
                return f"the camera has changed its size {MAX_RESIZES} times in {span_s:.0f} s"
        return None

    def takes(self, now_s: float) -> bool:
        """Tell whether a frame is used; of a camera that is too fast not every one is."""
        if self._pace.take(now_s) == 0:
            return True
        self.thinned += 1
        if self.thinned == 1:
            self._notice(
                "info",
                f"The camera sends more than {MAX_RATE_HZ} frames a second; so many are used.",
            )
        return False
