"""How fast a step is: stages, and beside it what else makes such pictures, in turn."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from pipeline.compared import make_compared
from pipeline.config import TINY_PRESET
from pipeline.engines.build import EngineConfig, build_engine
from pipeline.engines.engine import (
    Engine,
    Job,
    Settings,
    Size,
    TemporalState,
    image_shape,
)
from pipeline.engines.precision import Precision, choose_precision
from pipeline.errors import ConfigError

WARM_UP_RUNS = 3


@dataclass(frozen=True)
class BenchResult:
    """One machine's figures for one engine; times in milliseconds."""

    engine: str
    device: str
    model: str
    size: str
    threads: int
    runs: int
    load_s: float
    step_ms_p50: float
    step_ms_p95: float
    encode_ms_p50: float | None
    unet_ms_p50: float | None
    decode_ms_p50: float | None
    """Each stage of ``sdxs-tiny`` on its own; None for other models, and on a card, where
    ``--device cuda`` measures them."""
    peak_rss_mb: float | None
    """None on Windows, which keeps no such count."""
    compared: str | None = None
    """What was run in turn with the step, at the same size."""
    compared_ms_p50: float | None = None
    ratio: float | None = None
    """step_ms_p50 / compared_ms_p50."""
    processor_ratio: float | None = None
    """The same of the processor's time, all threads summed, which other jobs disturb least."""

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def bench_engine(config: EngineConfig, threads: int, runs: int, compare: bool) -> BenchResult:
    """Time one engine; rounds of the step and of the compared network take turns.

    Raises:
        ConfigError: no run at all, or ``compare`` without what that needs.
    """
    if runs < 1:
        raise ConfigError(f"--runs takes 1 or more (got {runs})")
    started_s = time.perf_counter()
    engine = build_engine(config)
    load_s = time.perf_counter() - started_s
    step = make_step(engine)
    name, other = make_compared(config, engine.size, threads) if compare else (None, None)
    tasks = [step] if other is None else [step, other]
    stages_ms: Sequence[float | None] = [None, None, None]
    if engine.model == TINY_PRESET.name:
        stages_ms = time_stages(engine.name, engine.size, threads, runs, config.precision)
    turns = take_turns(tasks, runs)
    times_ms = [turn.wall_ms for turn in turns[0]]
    p50_ms = statistics.median(times_ms)
    compared_p50_ms = processor_ratio = None
    if compare:
        compared_p50_ms = statistics.median(turn.wall_ms for turn in turns[1])
        ours_ms, theirs_ms = (statistics.median(turn.processor_ms for turn in row) for row in turns)
        processor_ratio = ours_ms / theirs_ms if theirs_ms else None
    result = BenchResult(
        engine=engine.name,
        device=engine.device,
        model=engine.model,
        size=str(engine.size),
        threads=threads,
        runs=runs,
        load_s=round(load_s, 2),
        step_ms_p50=p50_ms,
        step_ms_p95=percentile(times_ms, 0.95),
        encode_ms_p50=stages_ms[0],
        unet_ms_p50=stages_ms[1],
        decode_ms_p50=stages_ms[2],
        peak_rss_mb=measure_peak_rss_mb(),
        compared=name,
        compared_ms_p50=compared_p50_ms,
        ratio=p50_ms / compared_p50_ms if compared_p50_ms else None,
        processor_ratio=processor_ratio,
    )
    engine.close()
    return result


def measure_peak_rss_mb() -> float | None:
    """Return the most memory that this process ever had."""
    try:
        import resource
    except ImportError:  # on Windows
        return None
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes / 2**20


def make_step(engine: Engine) -> Callable[[], object]:
    """One frame of one session, as the server runs it."""
    shape = image_shape(engine.size, engine.pixel_format)
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    style = engine.styles[0].name if engine.styles else "an oil painting"
    job = Job(image, engine.encode_prompt(style), Settings(), TemporalState())
    return lambda: engine.translate([job])


class Turn(NamedTuple):
    """What one call took."""

    wall_ms: float
    processor_ms: float
    """Of all threads of this process."""


def take_turns(tasks: Sequence[Callable[[], object]], runs: int) -> list[list[Turn]]:
    """Time each task ``runs`` times in rounds of five, after a warm-up."""
    turns: list[list[Turn]] = [[] for _ in tasks]
    for task in tasks:
        for _ in range(WARM_UP_RUNS):
            task()
    while len(turns[0]) < runs:
        for task, row in zip(tasks, turns, strict=True):
            task()
            for _ in range(5):
                started_s, worked_s = time.perf_counter(), time.process_time()
                task()
                took_s = time.perf_counter() - started_s, time.process_time() - worked_s
                row.append(Turn(*(seconds * 1e3 for seconds in took_s)))
    return turns


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the values lie."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def time_stages(
    engine: str, size: Size, threads: int, runs: int, precision: Precision
) -> Sequence[float | None]:
    """Median milliseconds of encoder, U-Net and decoder, each run on its own as ``engine`` does.

    Their sum is a little above the step's time, since each copies its inputs and outputs.
    """
    import torch

    from pipeline.checkpoint import load_tiny
    from pipeline.engines.stages import bind_stages, compile_stages
    from pipeline.weights import TINY_WEIGHTS, embedded

    if threads < 1:
        raise ConfigError(f"--threads takes 1 or more for a measurement (got {threads})")
    torch.set_num_threads(threads)
    model = load_tiny(embedded(TINY_WEIGHTS))
    if engine == "openvino":
        stages = compile_stages(model, size, threads, choose_precision(precision))
    elif engine == "eager":
        stages = bind_stages(model, size, threads)
    else:
        return [None, None, None]
    turns = take_turns(stages, max(10, runs // 2))
    return [statistics.median(turn.wall_ms for turn in row) for row in turns]
