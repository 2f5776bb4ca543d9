"""How many frames a second a model makes on this machine, tried out while nobody waits for it."""

from __future__ import annotations

import time
from statistics import median

import numpy as np

from pipeline.engines import Engine, Job, TemporalState, image_shape
from stream.scheduler import EngineThread
from stream.status import EngineInfo

MOST_FRAMES = 6
ENOUGH_S = 0.3
"""No further frame is tried after so long."""
SLOW_S = 1.0
"""A model that takes longer is told from its first frame."""


async def measure_rate_hz(engine: EngineThread) -> float:
    """Time the engine at work on frames of noise, each at a moment when no live frame waits.

    The first frame warms up, and counts only with a slow model.

    Returns:
        Frames a second of one session, from the median.

    Raises:
        EngineNotReady: there is no engine, or it failed on a frame.
        ServerFull: too many pictures wait.
        ControlRefused: the model does not know its own first style.
    """
    state = TemporalState()
    first_s = await engine.when_idle(lambda each: _time_frame(each, state))
    times_s = [first_s] if first_s > SLOW_S else []
    while not times_s or (len(times_s) < MOST_FRAMES and sum(times_s) < ENOUGH_S):
        times_s.append(await engine.when_idle(lambda each: _time_frame(each, state)))
    info = engine.status.info
    if info is not None:
        # Until live frames are timed, with all that is done for them, this says most.
        engine.steps.note(info.model, info.size, 1, median(times_s))
    return 1 / max(median(times_s), 1e-6)


def _time_frame(engine: Engine, state: TemporalState) -> float:
    """Translate noise; return the seconds it took. In the engine's thread."""
    shape = image_shape(engine.size, engine.pixel_format)
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    conditioning = engine.encode_prompt(EngineInfo.of(engine).default_prompt)
    started_s = time.perf_counter()
    engine.translate([Job(image, conditioning, state=state)])
    return time.perf_counter() - started_s
