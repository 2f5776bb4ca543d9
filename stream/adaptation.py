"""Adaptation: watches the delay of all sessions and has the model do less, or more again."""

from __future__ import annotations

import asyncio
import logging
import time
from statistics import median, median_low

from pipeline.errors import PipelineError
from stream.config import ServerConfig
from stream.delay_target import (
    DOWN_AFTER,
    Concession,
    DelayTarget,
    Effort,
    Observation,
    make_ladder,
)
from stream.errors import ServerFull
from stream.models import list_smaller_sizes
from stream.renderer import ModelFactory
from stream.scheduler import EngineThread
from stream.sessions import Sessions
from stream.status import EngineInfo

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
WINDOW_S = 3.0
SETTLE_S = 1.0
"""After a step, pictures that were on their way before do not count."""
FEWEST_PICTURES = 2
"""In a window: a model of more than a second a frame makes no more."""


class Adaptation:
    """Holds the delay below ``config.target_ms``; used on the event loop.

    Its owner runs :meth:`run` and cancels it. Who else swaps the model comes first: while a
    swap is under way nothing is done, and a model that somebody else has chosen begins with
    all it can do.
    """

    def __init__(
        self,
        config: ServerConfig,
        engine: EngineThread,
        sessions: Sessions,
        make_engine: ModelFactory | None,
    ) -> None:
        """Make one that does nothing yet.

        Args:
            config: the target, and whether the size may change.
            engine: what is told to do less.
            sessions: whose delays count.
            make_engine: builds a model at another size; None: the size stays.
        """
        self._config = config
        self._engine = engine
        self._sessions = sessions
        self._make_engine = make_engine
        self.steps_taken = 0
        self._target: DelayTarget | None = None
        # What runs, as far as it was seen to or brought about here.
        self._known: EngineInfo | None = None
        self._changed_s = 0.0
        # Looks in which the engine was too slow for all sessions, one after the other.
        self._short = 0

    def __str__(self) -> str:
        """Say where the model stands, for the log."""
        if self._config.target_ms == 0:
            return "no delay target"
        target = f"delay target {self._config.target_ms:g} ms"
        if self._target is None:
            return target
        last = len(self._target.ladder) - 1
        return f"{target}, step {self._target.step} of {last} ({self._target.effort})"

    @property
    def step(self) -> int:
        """How many steps the model was taken back."""
        return self._target.step if self._target is not None else 0

    async def run(self) -> None:
        """Look and act once a second."""
        try:
            while self._config.target_ms > 0:
                await asyncio.sleep(LOOK_EVERY_S)
                await self._look(time.perf_counter())
        except Exception:
            logger.exception("the delay is not held below its target any more")
            self._engine.concession = None

    async def _look(self, now_s: float) -> None:
        info = self._engine.status.info
        if info is None or not self._engine.status.is_ready or self._engine.is_swapping:
            return
        if self._target is None or not _is_same(info, self._known):
            self._begin(info, now_s)
        assert self._target is not None, "_begin() makes one"
        seen = self._observe(max(now_s - WINDOW_S, self._changed_s + SETTLE_S))
        step = self._target.advise(seen, now_s) if seen is not None else None
        step = self._mind_rate(self._target, step, info)
        if seen is not None and step is not None:
            await self._take(self._target, step, seen, info)

    def _begin(self, info: EngineInfo, now_s: float) -> None:
        """Start at the top: the model is new."""
        can_resize = self._make_engine is not None and not self._config.is_size_fixed
        smaller = list_smaller_sizes(info) if can_resize else ()
        self._target = DelayTarget(self._config.target_ms, make_ladder(info.size, smaller))
        self._known = info
        self._changed_s = now_s
        self._engine.concession = None
        self._sessions.capacity.smaller = self._target.smaller_sizes()

    def _mind_rate(self, target: DelayTarget, step: int | None, info: EngineInfo) -> int | None:
        """Go down for the sake of everybody's frame rate too, and not up where it would suffer.

        Sessions were taken because the model can work smaller.
        """
        capacity, rates_hz = self._sessions.capacity, self._sessions.rates_hz()
        if step is not None:
            is_up = step < target.step
            size = target.ladder[step].size
            return None if is_up and not capacity.suffices(info, rates_hz, size) else step
        is_enough = capacity.suffices(info, rates_hz)
        self._short = 0 if is_enough else self._short + 1
        return target.smaller_step() if self._short >= DOWN_AFTER else None

    def _observe(self, since_s: float) -> Observation | None:
        """Put the sessions' newest pictures together; None: there are too few.

        Of the sessions' medians the lower middle one counts: what less than half of them
        suffer, such as one bad network, no smaller model cures.
        """
        medians: list[tuple[float, float, float]] = []
        for stats in self._sessions.stats():
            rows = [
                (travel.way_ms, travel.engine_ms, travel.translate_ms or 0.0)
                for travel in stats.travels(since_s)
                if travel.engine_ms is not None
            ]
            if len(rows) >= FEWEST_PICTURES:
                way_ms, engine_ms, translate_ms = (median(each) for each in zip(*rows, strict=True))
                medians.append((way_ms, engine_ms, translate_ms))
        if not medians:
            return None
        way_ms, engine_ms, translate_ms = (median_low(each) for each in zip(*medians, strict=True))
        rate_hz = self._sessions.translated_rate_hz()
        return Observation(way_ms, engine_ms, translate_ms, rate_hz)

    async def _take(
        self, target: DelayTarget, step: int, seen: Observation, info: EngineInfo
    ) -> None:
        before, effort = target.effort, target.ladder[step]
        if effort.size != before.size and not await self._resize(info, effort):
            return
        now_s = time.perf_counter()
        target.moved(step, now_s)
        self._short = 0
        self._sessions.capacity.smaller = target.smaller_sizes()
        self._changed_s = now_s
        self.steps_taken += 1
        self._engine.concession = self._to_concession(target) if step else None
        direction = "is above" if effort.work < before.work else "leaves room below"
        logger.info(
            "the way of a picture, %.0f ms, %s %g ms: the model goes from %s to %s",
            seen.way_ms,
            direction,
            target.target_ms,
            before,
            effort,
        )

    async def _resize(self, info: EngineInfo, effort: Effort) -> bool:
        """Swap the model for itself at another size; False: it was not to be."""
        make_engine, size = self._make_engine, effort.size
        assert make_engine is not None, "without one there is no other size on the ladder"
        try:
            await self._engine.swap(lambda: make_engine(info.model, size))
        except ServerFull:
            return False  # somebody else swaps
        except PipelineError as error:
            logger.error("the model cannot work at %s, so it keeps its size: %s", size, error)
            self._make_engine = None
            self._target = None
            self._sessions.capacity.smaller = ()
            return False
        self._known = self._engine.status.info
        return True

    def _to_concession(self, target: DelayTarget) -> Concession:
        effort, full = target.effort, target.ladder[0]
        parts = []
        if effort.size != full.size:
            parts.append(f"at {effort.size} instead of {full.size}")
        if effort.share != 1:
            parts.append(f"on {effort.share.numerator} of {effort.share.denominator} frames")
        what = " and ".join(parts)
        return Concession(
            effort, f"The model works {what}, to keep the delay below {target.target_ms:g} ms."
        )


def _is_same(info: EngineInfo, known: EngineInfo | None) -> bool:
    """Tell whether the model is the one that was seen last, though it may be built anew."""
    return known is not None and (info.model, info.size) == (known.model, known.size)
