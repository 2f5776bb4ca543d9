"""How many frames a second the engine makes, and whether that does for everybody."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from statistics import median

from pipeline.engines import Size
from stream.status import EngineInfo

_MEDIAN_OF = 30
_MAX_KEPT = 64
"""Of models, sizes and batches together."""


class StepTimes:
    """What a batch took in the engine's thread, by model, size and frames; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times_s: OrderedDict[tuple[str, Size, int], deque[float]] = OrderedDict()

    def note(self, model: str, size: Size, frames: int, duration_s: float) -> None:
        """Record one batch, with all that the engine's thread does for it."""
        key = (model, size, frames)
        with self._lock:
            times_s = self._times_s.setdefault(key, deque(maxlen=_MEDIAN_OF))
            times_s.append(duration_s)
            self._times_s.move_to_end(key)
            if len(self._times_s) > _MAX_KEPT:
                self._times_s.popitem(last=False)

    def batch_s(self, model: str, size: Size, frames: int) -> float | None:
        """Return what a batch takes; where it was not measured, rather more than less.

        From a smaller batch it grows with the frames, from a larger one it does not shrink.

        Returns:
            A median; None: of this model at this size nothing was measured.
        """
        with self._lock:
            known = {
                count: median(times_s)
                for (name, at, count), times_s in self._times_s.items()
                if (name, at) == (model, size)
            }
        if not known:
            return None
        if frames in known:
            return known[frames]
        below = [count for count in known if count < frames]
        if below:
            return known[max(below)] * frames / max(below)
        return known[min(known)]


class Capacity:
    """Tells whether one engine can give so many sessions so many frames; no clock, no I/O."""

    def __init__(self, steps: StepTimes, min_fps: float) -> None:
        """Begin without a measurement.

        Args:
            steps: what was measured.
            min_fps: what everybody gets at least, or all that their camera sends; 0: anything.
        """
        self._steps = steps
        self._min_fps = min_fps
        self.smaller: tuple[Size, ...] = ()
        """What the model may still go down to; the delay target's owner keeps it."""

    def rate_hz(self, info: EngineInfo, sessions: int, size: Size | None = None) -> float | None:
        """Return how many frames a second the engine makes for so many sessions at once.

        Args:
            info: the engine.
            sessions: at least one.
            size: another than the engine's; the time of a step that was not measured at it
                is taken to go with the pixels.
        """
        frames = max(1, min(sessions, info.max_batch))
        measured_at = info.size if size is None else size
        batch_s = self._steps.batch_s(info.model, measured_at, frames)
        if batch_s is None and size is not None:
            own_s = self._steps.batch_s(info.model, info.size, frames)
            share = size.width * size.height / (info.size.width * info.size.height)
            batch_s = None if own_s is None else own_s * share
        return None if not batch_s else frames / batch_s

    def suffices(
        self, info: EngineInfo, rates_hz: Sequence[float], size: Size | None = None
    ) -> bool:
        """Tell whether nobody gets less than ``min_fps``, or less than their camera sends.

        The engine takes turns, so who asks for less leaves the rest to the others. It does
        for one, whatever it is; and for all as long as nothing was measured.

        Args:
            info: the engine.
            rates_hz: what each session's camera sends.
            size: another than the engine's.
        """
        if len(rates_hz) <= 1 or self._min_fps == 0:
            return True
        rate_hz = self.rate_hz(info, len(rates_hz), size)
        return rate_hz is None or sum(min(each, self._min_fps) for each in rates_hz) <= rate_hz

    def has_room(self, info: EngineInfo, rates_hz: Sequence[float]) -> bool:
        """Tell whether the engine does for these, at its size or at one it may go down to."""
        return any(self.suffices(info, rates_hz, size) for size in (None, *self.smaller))
