"""What /metrics reads off at the moment it is asked: the engine, the line, the connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from stream.adaptation import Adaptation
from stream.scheduler import EngineThread
from stream.sessions import Sessions
from stream.status import EngineState


class Gauges(Collector):
    """Asks when it is collected, on the event loop; nothing is kept here."""

    def __init__(
        self,
        sessions: Sessions,
        engine: EngineThread,
        adaptation: Adaptation,
        count_connections: Callable[[], int],
    ) -> None:
        """Ask nothing yet.

        Args:
            sessions: whose counts are brought up to date first.
            engine: told of by state, model and size.
            adaptation: how far the model was taken back.
            count_connections: returns how many HTTP connections are open.
        """
        self._sessions = sessions
        self._engine = engine
        self._adaptation = adaptation
        self._count_connections = count_connections

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Return nothing, so that nothing is asked before there is anything."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return the figures of now."""
        yield GaugeMetricFamily(
            "stream_waiting", "Clients in line for a session.", len(self._sessions.waiting)
        )
        yield GaugeMetricFamily(
            "stream_draining",
            "1 while no new sessions are taken because the server is about to stop.",
            int(self._sessions.is_draining),
        )
        yield GaugeMetricFamily(
            "stream_http_connections", "Open HTTP connections.", self._count_connections()
        )
        yield GaugeMetricFamily(
            "stream_adaptation_step",
            "Steps that the model was taken back to keep delay and frame rate.",
            self._adaptation.step,
        )
        yield from self._collect_engine()

    def _collect_engine(self) -> Iterator[GaugeMetricFamily]:
        status = self._engine.status
        states = GaugeMetricFamily(
            "stream_engine_state", "1 for the engine's present state.", labels=["state"]
        )
        for state in EngineState:
            states.add_metric([state.value], int(status.state is state))
        yield states
        # One row at a time: what ran before is not shown any more.
        about = GaugeMetricFamily(
            "stream_engine_info",
            "1, with what the engine runs.",
            labels=["engine", "device", "model", "size"],
        )
        info = status.info
        if info is not None:
            about.add_metric([info.name, info.device, info.model, str(info.size)], 1)
        yield about
        rate = GaugeMetricFamily(
            "stream_capacity_frames_per_second",
            "Frames a second that the engine makes for all sessions together, as measured.",
        )
        sessions = max(1, len(self._sessions.rates_hz()))
        rate_hz = None if info is None else self._sessions.capacity.rate_hz(info, sessions)
        if rate_hz is not None:
            rate.add_metric([], rate_hz)
        yield rate
