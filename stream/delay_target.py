"""How much the model may do so that the delay stays below a target: the decision, no more.

One engine serves all sessions, so there is one decision for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from pipeline.engines import Size

SHARES = (Fraction(2, 3), Fraction(1, 2))
"""Of the camera's frames; tried when no smaller size is left."""
DOWN_AFTER = 3
"""Observations above the target, one after the other, before a step is taken."""
ENGINE_SHARE = 1 / 3
"""Of the way: where the model takes less, it is not asked to do less."""
UP_SHARE = 0.7
"""Of the target: a step back up is tried where the expected way stays below it."""
FIRST_PATIENCE_S = 10.0
LONGEST_PATIENCE_S = 300.0
"""How long after a step down the way up is tried; doubled each time it did not last."""
LASTING_S = 60.0
"""A step up that is taken back sooner, or within twice the patience before it, has failed."""


@dataclass(frozen=True, slots=True)
class Effort:
    """What the model is given to do."""

    size: Size
    """Pixels it works at."""
    share: Fraction = Fraction(1)
    """Of the camera's frames that it gets."""

    def __str__(self) -> str:
        if self.share == 1:
            return str(self.size)
        return f"{self.size}, {self.share.numerator} of {self.share.denominator} frames"

    @property
    def work(self) -> Fraction:
        """Pixels for one frame of the camera."""
        return self.size.width * self.size.height * self.share

    def takes(self, number: int) -> bool:
        """Tell whether the camera's frame of this number is given to the model."""
        return (number + 1) * self.share // 1 > number * self.share // 1


@dataclass(frozen=True, slots=True)
class Observation:
    """What the last seconds looked like: medians of all sessions."""

    way_ms: float
    """A picture's whole way."""
    engine_ms: float
    """Of that, waiting for the model and in it."""
    translate_ms: float
    """Of that, in it."""
    frame_rate_hz: float
    """Of all cameras together."""


def make_ladder(size: Size, smaller: Sequence[Size]) -> tuple[Effort, ...]:
    """Return what can be done, from everything to the least.

    Args:
        size: the model's own.
        smaller: what it may fall back to, largest first; empty: its size is fixed.
    """
    sizes = (size, *smaller)
    efforts = [Effort(each) for each in sizes]
    return (*efforts, *(Effort(sizes[-1], share) for share in SHARES))


class DelayTarget:
    """Decides, one step at a time; times are ``time.perf_counter()``."""

    def __init__(self, target_ms: float, ladder: Sequence[Effort]) -> None:
        self.target_ms = target_ms
        self.ladder = tuple(ladder)
        self.step = 0
        """Where on the ladder the model stands."""
        self._above = 0
        self._patience_s = FIRST_PATIENCE_S
        self._up_from_s = 0.0
        self._went_up_s: float | None = None

    @property
    def effort(self) -> Effort:
        """What the model is to do."""
        return self.ladder[self.step]

    def smaller_sizes(self) -> tuple[Size, ...]:
        """Return what the model can still go down to, largest first."""
        below = (effort.size for effort in self.ladder[self.step + 1 :] if effort.share == 1)
        return tuple(size for size in below if size != self.effort.size)

    def smaller_step(self) -> int | None:
        """Return the next step down that makes the model smaller; None: there is none."""
        return self.step + 1 if self.smaller_sizes() else None

    def advise(self, seen: Observation, now_s: float) -> int | None:
        """Return the step to take, or None to stay.

        Nothing is changed by it: :meth:`moved` says that the step was taken.
        """
        if seen.way_ms > self.target_ms:
            self._above += 1
            return self._find_lower(seen) if self._above >= DOWN_AFTER else None
        self._above = 0
        if self.step == 0 or now_s < self._up_from_s:
            return None
        growth = float(self.ladder[self.step - 1].work / self.effort.work) - 1
        expected_ms = seen.way_ms + growth * seen.engine_ms
        return self.step - 1 if expected_ms <= UP_SHARE * self.target_ms else None

    def moved(self, step: int, now_s: float) -> None:
        """Note that a step was taken."""
        if step > self.step:
            lasting_s = max(LASTING_S, 2 * self._patience_s)
            has_failed = self._went_up_s is not None and now_s - self._went_up_s < lasting_s
            longer_s = min(2 * self._patience_s, LONGEST_PATIENCE_S)
            self._patience_s = longer_s if has_failed else FIRST_PATIENCE_S
            self._up_from_s = now_s + self._patience_s
        else:
            self._went_up_s = now_s
            self._up_from_s = now_s + FIRST_PATIENCE_S
        self._above = 0
        self.step = step

    def _find_lower(self, seen: Observation) -> int | None:
        if seen.engine_ms < ENGINE_SHARE * seen.way_ms:
            return None  # it is the network, or something else that no smaller model cures
        for step in range(self.step + 1, len(self.ladder)):
            share = self.ladder[step].share
            busy = seen.translate_ms / 1000 * seen.frame_rate_hz * float(share)
            # Fewer frames help a model that then rests between them; else they only get older.
            if share == 1 or busy < 1:
                return step
        return None


@dataclass(frozen=True, slots=True)
class Concession:
    """What is conceded to the delay target at present."""

    effort: Effort
    detail: str
    """One sentence for a person."""

    def to_json(self) -> dict[str, str]:
        """Return it as the page shows it."""
        share = self.effort.share
        return {
            "size": str(self.effort.size),
            "share": f"{share.numerator}/{share.denominator}",
            "detail": self.detail,
        }
