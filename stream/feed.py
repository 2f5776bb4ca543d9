"""Feed: one session's place at the engine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

from av import VideoFrame

from pipeline.engines import Conditioning, Engine, Job, TemporalState
from stream import frames
from stream.controls import Controls
from stream.frames import Placement
from stream.latest import Slot
from stream.region import RegionBlender
from stream.safety import Guard


@dataclass(frozen=True, slots=True)
class ArrivedFrame:
    """A camera frame as it came from the decoder."""

    frame: VideoFrame
    number: int
    """Counts up within a session; results keep this order."""
    arrived_s: float
    """``time.perf_counter()`` when it was received."""
    complete_s: float | None = None
    """When its last packet was there, before it was decoded; None: not known."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A frame that is ready to be sent."""

    arrived: ArrivedFrame
    frame: VideoFrame
    is_translated: bool
    """False: it is the camera's own picture."""
    stages_ms: dict[str, float] = field(default_factory=dict)
    is_repeat: bool = False
    """True: it was sent before, and says so in the picture; it counts in no figure."""


class FeedOwner(Protocol):
    """Who a feed works for; every method is called on the event loop."""

    def deliver(self, finished: Finished) -> None:
        """Take one finished frame."""

    def notice(self, level: str, detail: str) -> None:
        """Take one sentence for the viewer; ``level`` is ``"info"`` or ``"warning"``."""

    def prompt_replaced(self, asked: str, used: str) -> None:
        """Learn that the model renders ``used`` where ``asked`` was set."""

    def engine_changed(self) -> None:
        """Learn that another engine draws its pictures from now on."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a prompt means to one engine, and the way there from the look before."""

    engine: Engine
    asked: str
    """The prompt as it was set."""
    used: str
    """The prompt that is rendered: another one if the model does not know ``asked``."""
    start: Conditioning
    goal: Conditioning
    since_s: float
    transition_s: float

    def at(self, now_s: float) -> Conditioning:
        """Return the conditioning of a frame that is rendered at ``now_s``."""
        elapsed_s = now_s - self.since_s
        if elapsed_s >= self.transition_s:
            return self.goal
        return self.start.towards(self.goal, elapsed_s / self.transition_s)


class Feed:
    """One session's newest frame, settings and memory.

    ``inbox`` is used under the lock of :class:`~stream.turns.Turns`. The loop replaces
    ``controls`` as a whole, counts ``spared``, and brings ``guard`` and ``blender`` before they are
    needed; the rest belongs to the engine's thread, but that either may say that there is a gap.
    """

    def __init__(self, owner: FeedOwner, controls: Controls) -> None:
        self.owner = owner
        self.controls = controls
        self.inbox: Slot[ArrivedFrame] = Slot()
        self.guard: Guard | None = None
        """Says which of its pictures may be shown; None: all."""
        self.blender: RegionBlender | None = None
        """Shows the translation in a part of the picture; there before the controls ask for it."""
        # Frames that the model was spared, for the delay's sake; counted on the loop.
        self.spared = 0
        # Whether the owner was told that the engine fails; ends with the next success.
        self.is_failing = False
        self._look: Look | None = None
        self._state = TemporalState()
        self._last: tuple[Engine, Placement] | None = None
        # Whether frames went past the engine, so that its memory of the last is stale.
        self.has_gap = False

    def look(self, engine: Engine) -> Look | None:
        """Return the look as it was rendered last, unless it was for another engine."""
        return self._look if self._look and self._look.engine is engine else None

    def set_look(
        self, engine: Engine, prompts: tuple[str, str], goal: Conditioning, fade_s: float
    ) -> None:
        """Head for ``goal`` in ``fade_s`` seconds; at once if the engine is a new one.

        Args:
            engine: where ``goal`` comes from.
            prompts: the one asked for and the one used.
            goal: what the used one means.
            fade_s: 0 for a cut.
        """
        now_s = time.perf_counter()
        before = self.look(engine)
        start = goal if before is None else before.at(now_s)
        if start.tokens.shape != goal.tokens.shape:
            start = goal
        self._look = Look(engine, *prompts, start, goal, now_s, fade_s)

    def to_job(
        self, engine: Engine, arrived: ArrivedFrame, controls: Controls
    ) -> tuple[Job, Placement]:
        """Turn a frame into this session's share of a batch; :meth:`set_look` came before."""
        image, placement = frames.to_image(arrived.frame, engine.size, engine.pixel_format)
        if self._last is None or self._last[0] is not engine:
            self._state = TemporalState()
        elif self._last[1] != placement or self.has_gap:
            self._state.forget()
        self._last = (engine, placement)
        self.has_gap = False
        look = self.look(engine)
        assert look is not None, "set_look comes first"
        conditioning = look.at(time.perf_counter())
        return Job(image, conditioning, controls.settings_for(engine), self._state), placement
