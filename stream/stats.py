"""Ages, rates, drops and stage times: per session for its page, in sum for Prometheus."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

_RATE_WINDOW_S = 2.0
_RATE_FRAMES = 240  # 2 s at 120 Hz
_MEDIAN_OF = 60
_TRAVELS = 1800  # a minute at 30 Hz
_MODEL_STAGES = ("wait", "prepare", "translate", "mask", "finish")
_STAGES_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.5, 1.0, 3.0)


@dataclass(frozen=True, slots=True)
class Travel:
    """One picture's whole way, as far as the server knows it."""

    sent_s: float
    """``time.perf_counter()`` when its last packet left."""
    way_ms: float
    """From its last packet received to its last packet sent, and a round trip.

    Half of the round trip is for the way here and half for the way there. What the browser
    takes to encode, decode and show is not in it.
    """
    engine_ms: float | None
    """Of that, waiting for the model and in it; None: it went past the model."""
    translate_ms: float | None
    """Of that, in it."""

    @classmethod
    def of(cls, sent_s: float, way_ms: float, stages_ms: Mapping[str, float] | None) -> Travel:
        """Make one from a picture's stages; None: it went past the model."""
        if stages_ms is None:
            return cls(sent_s, way_ms, None, None)
        translate_ms = stages_ms.get("translate", 0.0)
        return cls(sent_s, way_ms, stages_ms.get("wait", 0.0) + translate_ms, translate_ms)


class Metrics:
    """What ``/metrics`` shows; safe to use from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, processor time, file descriptors
        self.sessions = Gauge("stream_sessions", "Open sessions.", registry=self.registry)
        self.viewers = Gauge("stream_viewers", "Peers that watch.", registry=self.registry)
        self.sessions_total = Counter(
            "stream_sessions_opened", "Sessions opened.", registry=self.registry
        )
        self.frames = Counter(
            "stream_frames", "Frames received and sent.", ["direction"], registry=self.registry
        )
        self.dropped = Counter(
            "stream_frames_dropped",
            "Frames replaced before anyone took them.",
            ["side"],
            registry=self.registry,
        )
        self.beneath = Counter(
            "stream_beneath",
            "Losses asked for again, given up or refused, and sound that nobody took in time.",
            ["event"],
            registry=self.registry,
        )
        self.bytes = Counter(
            "stream_transport_bytes",
            "Bytes of media and control, in packets received and sent.",
            ["direction"],
            registry=self.registry,
        )
        self.refusals = Counter(
            "stream_refusals",
            "Requests that were refused, by the reason.",
            ["reason"],
            registry=self.registry,
        )
        self.stage_s = Histogram(
            "stream_stage_seconds",
            "Time of a frame in one stage.",
            ["stage"],
            buckets=_STAGES_S,
            registry=self.registry,
        )
        self.age_s = Histogram(
            "stream_frame_age_seconds",
            "From the decoder to the encoder.",
            buckets=_STAGES_S,
            registry=self.registry,
        )
        self.way_s = Histogram(
            "stream_way_seconds",
            "From the last packet received to the last packet sent, and a round trip.",
            buckets=_STAGES_S,
            registry=self.registry,
        )
        self.batch = Histogram(
            "stream_batch_frames",
            "Frames in one call of the engine.",
            buckets=(1, 2, 4, 8, 16),
            registry=self.registry,
        )
        self.engine_failures = Counter(
            "stream_engine_failures", "Batches that the engine failed.", registry=self.registry
        )
        self.engine_loads = Counter(
            "stream_engine_loads", "Engines built.", ["result"], registry=self.registry
        )
        self.safety_checks = Counter(
            "stream_safety_checks",
            "Pictures that the safety checker has looked at.",
            ["verdict"],
            registry=self.registry,
        )

    def exposition(self) -> bytes:
        """Return the text format of Prometheus."""
        return generate_latest(self.registry)


class Rate:
    """How often something happened in the last two seconds."""

    def __init__(self) -> None:
        self._times_s: deque[float] = deque(maxlen=_RATE_FRAMES)

    def tick(self) -> None:
        """Count one."""
        self._times_s.append(time.perf_counter())

    def rate_hz(self) -> float:
        """Return events a second, 0 after two seconds of silence."""
        now_s = time.perf_counter()
        while self._times_s and now_s - self._times_s[0] > _RATE_WINDOW_S:
            self._times_s.popleft()
        if len(self._times_s) < 2:
            return 0.0
        # Silence since the last event counts too, else a stop would show as the old rate.
        interval_s = (self._times_s[-1] - self._times_s[0]) / (len(self._times_s) - 1)
        span_s = max(now_s - self._times_s[0], self._times_s[-1] - self._times_s[0] + interval_s)
        return len(self._times_s) / span_s


class SessionStats:
    """One session's numbers; used on the event loop only."""

    def __init__(self, metrics: Metrics) -> None:
        self.frames_in = 0
        self.frames_out = 0
        self.dropped_in = 0
        self.dropped_out = 0
        self._beneath: dict[str, int] = {}
        self._bytes = (0, 0)
        self._metrics = metrics
        self._rate_in = Rate()
        self._rate_out = Rate()
        self._age_ms: deque[float] = deque(maxlen=_MEDIAN_OF)
        self._here_ms: deque[float] = deque(maxlen=_MEDIAN_OF)
        # Of a picture that is sent again and again; None: the last one sent was new.
        self._repeated_ms: float | None = None
        self._stages_ms: dict[str, deque[float]] = {}
        self._travels: deque[Travel] = deque(maxlen=_TRAVELS)

    @property
    def rate_in_hz(self) -> float:
        """Frames a second from the decoder."""
        return self._rate_in.rate_hz()

    def arrived(self) -> None:
        """Count a frame from the decoder."""
        self.frames_in += 1
        self._rate_in.tick()
        self._metrics.frames.labels("in").inc()

    def sent(self, age_ms: float) -> None:
        """Count a frame for the encoder."""
        self.frames_out += 1
        self._rate_out.tick()
        self._age_ms.append(age_ms)
        self._metrics.frames.labels("out").inc()
        self._metrics.age_s.observe(age_ms / 1000)

    def set_dropped(self, dropped_in: int, dropped_out: int) -> None:
        """Take the counts of the two slots, which only grow."""
        self._metrics.dropped.labels("in").inc(dropped_in - self.dropped_in)
        self._metrics.dropped.labels("out").inc(dropped_out - self.dropped_out)
        self.dropped_in, self.dropped_out = dropped_in, dropped_out

    def set_beneath(self, counts: Mapping[str, int]) -> None:
        """Take what happened to packets and sound, by event; each count only grows."""
        for event, count in counts.items():
            self._metrics.beneath.labels(event).inc(count - self._beneath.get(event, 0))
        self._beneath = dict(counts)

    def set_bytes(self, received: int, sent: int) -> None:
        """Take what a transport has carried, which only grows."""
        self._metrics.bytes.labels("in").inc(max(0, received - self._bytes[0]))
        self._metrics.bytes.labels("out").inc(max(0, sent - self._bytes[1]))
        self._bytes = (received, sent)

    def stage(self, name: str, duration_ms: float) -> None:
        """Record how long one frame took in a stage."""
        self._stages_ms.setdefault(name, deque(maxlen=_MEDIAN_OF)).append(duration_ms)
        self._metrics.stage_s.labels(name).observe(duration_ms / 1000)

    def went_past_model(self) -> None:
        """Forget what the model took: the picture that is sent now was not in it."""
        for name in _MODEL_STAGES:
            self._stages_ms.pop(name, None)

    def passed(self, here_ms: float, *, is_repeat: bool) -> None:
        """Record how long a picture was here, from its last packet in to its last packet out.

        One that is sent again gets older with each time, and so does what is seen.
        """
        self._repeated_ms = here_ms if is_repeat else None
        if not is_repeat:
            self._here_ms.append(here_ms)

    def travelled(self, travel: Travel) -> None:
        """Record one picture's whole way."""
        self._travels.append(travel)
        self._metrics.way_s.observe(travel.way_ms / 1000)

    def travels(self, since_s: float) -> list[Travel]:
        """Return the ways of the pictures sent after a moment, the last 1800 at most."""
        return [travel for travel in self._travels if travel.sent_s > since_s]

    def stages_ms(self) -> dict[str, float]:
        """Return rolling medians by stage."""
        return {name: median(ms) for name, ms in self._stages_ms.items()}

    def to_json(self) -> dict[str, object]:
        """Return rates, drops and rolling medians; None where nothing was measured.

        ``here_ms`` of a picture that is sent again is its own.
        """
        here_ms = self._repeated_ms
        if here_ms is None and self._here_ms:
            here_ms = median(self._here_ms)
        stages: dict[str, float | None] = dict.fromkeys(("decode", "wait", "translate", "encode"))
        stages.update({name: round(ms, 2) for name, ms in self.stages_ms().items()})
        return {
            "fps_in": round(self._rate_in.rate_hz(), 1),
            "fps_out": round(self._rate_out.rate_hz(), 1),
            "dropped_in": self.dropped_in,
            "dropped_out": self.dropped_out,
            "beneath": self._beneath,
            "age_ms": round(median(self._age_ms), 1) if self._age_ms else None,
            "here_ms": None if here_ms is None else round(here_ms, 1),
            "stages_ms": stages,
        }
