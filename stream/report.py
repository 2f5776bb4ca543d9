"""A line of figures in the log, every so often while sessions are open."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from statistics import median, quantiles

from stream.sessions import Sessions
from stream.stats import Metrics

logger = logging.getLogger(__name__)

STAGES = ("decode", "wait", "prepare", "translate", "finish", "encode", "send")

_TOTALS = {
    "fps in": ("stream_frames_total", {"direction": "in"}),
    "fps out": ("stream_frames_total", {"direction": "out"}),
    "dropped in": ("stream_frames_dropped_total", {"side": "in"}),
    "dropped out": ("stream_frames_dropped_total", {"side": "out"}),
}


class Report:
    """Sums all sessions up; used on the event loop. Its owner runs :meth:`run` and cancels it."""

    def __init__(self, sessions: Sessions, metrics: Metrics, to_state: Callable[[], str]) -> None:
        """Begin to count.

        Args:
            sessions: whose pictures are timed.
            metrics: what has been counted.
            to_state: returns what else the line says, at its end.
        """
        self._sessions = sessions
        self._metrics = metrics
        self._to_state = to_state
        self._totals = self._read_totals()
        self._since_s = time.perf_counter()

    async def run(self, every_s: float) -> None:
        """Log a line every ``every_s`` seconds while somebody is there; 0: never."""
        while every_s > 0:
            await asyncio.sleep(every_s)
            line = self.take_line()
            if len(self._sessions):
                logger.info("%s", line)

    def take_line(self) -> str:
        """Return the figures since the last line; they begin anew with it."""
        now_s, totals = time.perf_counter(), self._read_totals()
        span_s = max(now_s - self._since_s, 1e-3)
        grown = {name: totals[name] - self._totals[name] for name in totals}
        parts = [
            f"sessions {self._gauge('stream_sessions')}, viewers {self._gauge('stream_viewers')}",
            f"{grown['fps in'] / span_s:.1f} fps in, {grown['fps out'] / span_s:.1f} out",
            f"dropped {grown['dropped in']:.0f} in, {grown['dropped out']:.0f} out",
            f"way {self._to_way(self._since_s)}",
            f"{self._to_stages()} ms",
            self._to_state(),
        ]
        self._totals, self._since_s = totals, now_s
        return "; ".join(parts)

    def _to_way(self, since_s: float) -> str:
        ways_ms = [
            travel.way_ms for stats in self._sessions.stats() for travel in stats.travels(since_s)
        ]
        if len(ways_ms) < 2:
            return "not known"
        p95_ms = quantiles(ways_ms, n=20, method="inclusive")[-1]
        return f"{median(ways_ms):.0f} ms median, {p95_ms:.0f} ms p95"

    def _to_stages(self) -> str:
        """Return the sessions' medians of each stage, in the order of the way."""
        rows = [stats.stages_ms() for stats in self._sessions.stats()]
        medians = []
        for stage in STAGES:
            known_ms = [row[stage] for row in rows if stage in row]
            medians.append(f"{stage} {median(known_ms):.1f}" if known_ms else f"{stage} –")
        return ", ".join(medians)

    def _read_totals(self) -> dict[str, float]:
        read = self._metrics.registry.get_sample_value
        return {name: read(sample, labels) or 0.0 for name, (sample, labels) in _TOTALS.items()}

    def _gauge(self, name: str) -> int:
        return round(self._metrics.registry.get_sample_value(name) or 0)
