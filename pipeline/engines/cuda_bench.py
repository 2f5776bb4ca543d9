"""How fast a model is on a CUDA card: all that one needs to publish a row about it.

Times of the device are taken between events around replays, so that Python is not in them; times
of a frame are taken on the host, from an image in to an image out, with everything in them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from pipeline.engines.cuda_graph import WARM_UP_RUNS, CudaGraphEngine
from pipeline.engines.engine import Job
from pipeline.engines.trial import make_trial
from pipeline.errors import ConfigError
from pipeline.kernels import frames_to_pixels, pixels_to_frames
from pipeline.pixels import PIXEL_OFFSET, PIXEL_SCALE

FRAMES_IN, FRAMES_OUT = "frames to pixels", "pixels to frames"


@dataclass(frozen=True)
class BatchTimes:
    """One batch size; times in milliseconds."""

    batch: int
    replay_ms_p50: float | None
    """On the device, without the copies; None where there is no graph."""
    replay_ms_p95: float | None
    eager_ms_p50: float
    """The same kernels launched one by one by Python."""
    largest_difference: int | None
    """Of a replay's pictures to eager's, of 255; None where there is no graph."""
    latency_ms_p50: float
    """From images in to images out."""
    latency_ms_p95: float
    images_per_s: float
    """With two batches under way."""
    stages_ms: dict[str, float]
    """Each stage as a graph of its own: their sum is a little above a replay."""

    def to_difference(self) -> str:
        """Write how far a replay's pictures are from eager's."""
        return "—" if self.largest_difference is None else f"{self.largest_difference} of 255"


@dataclass(frozen=True)
class CudaBenchResult:
    """One card's figures for one model."""

    engine: str
    gpu: str
    decision: str
    model: str
    size: str
    dtype: str
    torch: str
    cuda: str
    cudnn: int
    runs: int
    start_s: float
    memory_mb: float
    """The most that torch took from the card at once, weights included."""
    batches: list[BatchTimes]

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)

    def to_card(self) -> str:
        """For a person: one row a batch size."""
        lines = [
            f"{self.model} {self.size} {self.dtype} on {self.gpu}",
            f"{self.decision}",
            f"torch {self.torch}, CUDA {self.cuda}, cuDNN {self.cudnn}; {self.runs} runs, "
            f"ready after {self.start_s:.1f} s, {self.memory_mb:.0f} MB",
            "",
            "| batch | replay ms | p95 | eager ms | differ | frame ms | p95 | images/s "
            "| stages ms |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for row in self.batches:
            stages = ", ".join(f"{name} {ms:.2f}" for name, ms in row.stages_ms.items())
            lines.append(
                f"| {row.batch} | {to_cell(row.replay_ms_p50)} | {to_cell(row.replay_ms_p95)} "
                f"| {row.eager_ms_p50:.2f} | {row.to_difference()} "
                f"| {row.latency_ms_p50:.2f} | {row.latency_ms_p95:.2f} "
                f"| {row.images_per_s:.1f} | {stages} |"
            )
        return "\n".join(lines)


def to_cell(time_ms: float | None) -> str:
    """Write a time that may not exist."""
    return "—" if time_ms is None else f"{time_ms:.2f}"


def bench_cuda(make_engine: Callable[[], CudaGraphEngine], runs: int) -> CudaBenchResult:
    """Start an engine and time every batch size it has; closes it.

    Raises:
        ConfigError: too few runs for a 95th percentile.
    """
    if runs < 20:
        raise ConfigError(f"--runs takes 20 or more on a card (got {runs})")
    started = time.perf_counter()
    engine = make_engine()
    start_s = time.perf_counter() - started
    sizes = [size for size in (1, 2, 4, 8) if size <= engine.max_batch]
    batches = [time_batch(engine, size, runs) for size in sizes]
    result = CudaBenchResult(
        engine=engine.name,
        gpu=torch.cuda.get_device_name(),
        decision=engine.device,
        model=engine.model,
        size=str(engine.size),
        dtype=str(engine.shape.dtype).removeprefix("torch."),
        torch=torch.__version__,
        cuda=torch.version.cuda or "none",
        cudnn=torch.backends.cudnn.version() or 0,  # type: ignore[no-untyped-call]
        runs=runs,
        start_s=round(start_s, 2),
        memory_mb=torch.cuda.max_memory_reserved() / 1e6,
        batches=batches,
    )
    engine.close()
    return result


def time_batch(engine: CudaGraphEngine, batch: int, runs: int) -> BatchTimes:
    """Time one batch size."""
    trial = list(make_trial(engine.shape, batch))
    latencies = time_frames(engine, trial, runs)
    images_per_s = time_throughput(engine, trial, runs)
    replays = time_on_device(engine, lambda: engine.advance(batch), runs)
    has_graph = batch in engine.graph_sizes
    eager = time_on_device(engine, lambda: engine.run_eagerly(batch), runs)
    return BatchTimes(
        batch=batch,
        replay_ms_p50=statistics.median(replays) if has_graph else None,
        replay_ms_p95=percentile_95(replays) if has_graph else None,
        eager_ms_p50=statistics.median(eager),
        largest_difference=engine.differences.get(batch) if has_graph else None,
        latency_ms_p50=statistics.median(latencies),
        latency_ms_p95=percentile_95(latencies),
        images_per_s=images_per_s,
        stages_ms=time_stages(engine, batch, runs),
    )


def percentile_95(values: Sequence[float]) -> float:
    """Return what 95 of 100 values do not exceed."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def time_frames(engine: CudaGraphEngine, trial: Sequence[Sequence[Job]], runs: int) -> list[float]:
    """Time batches from images to images, one after another, in milliseconds."""
    times = []
    for run in range(WARM_UP_RUNS + runs):
        started = time.perf_counter()
        engine.translate(trial[run % len(trial)])
        times.append((time.perf_counter() - started) * 1e3)
    return times[WARM_UP_RUNS:]


def time_throughput(engine: CudaGraphEngine, trial: Sequence[Sequence[Job]], runs: int) -> float:
    """Return images a second with two batches under way."""
    started = time.perf_counter()
    ticket = engine.submit(trial[0])
    for run in range(1, runs):
        following = engine.submit(trial[run % len(trial)])
        engine.collect(ticket)
        ticket = following
    engine.collect(ticket)
    return runs * len(trial[0]) / (time.perf_counter() - started)


def time_on_device(engine: CudaGraphEngine, work: Callable[[], object], runs: int) -> list[float]:
    """Time work on the engine's stream between events, in milliseconds, after a warm-up."""
    times = []
    with engine.on_stream():
        for run in range(WARM_UP_RUNS + runs):
            before, after = (
                torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]
                for _ in range(2)
            )
            before.record()
            work()
            after.record()
            after.synchronize()
            if run >= WARM_UP_RUNS:
                times.append(before.elapsed_time(after))
    return times


def time_stages(engine: CudaGraphEngine, batch: int, runs: int) -> dict[str, float]:
    """Time each stage of a step as a graph of its own, on what it reads in a step.

    Returns:
        median milliseconds by stage, in the order of a step.
    """
    works = dict(watch_stages(engine, batch))
    return {
        name: statistics.median(time_on_device(engine, capture_work(engine, work), runs))
        for name, work in works.items()
    }


def watch_stages(engine: CudaGraphEngine, batch: int) -> list[tuple[str, Callable[[], object]]]:
    """Run a step eagerly and return its stages, each ready to run on the same inputs again."""
    inputs = engine.static_rows(batch)
    height, width = inputs.memory.shape[-2:]

    def frames_in() -> Tensor:
        return frames_to_pixels(
            *(inputs.images, height, width, inputs.memory.dtype),
            scale=PIXEL_SCALE,
            offset=PIXEL_OFFSET,
        )

    def frames_out() -> Tensor:
        return pixels_to_frames(inputs.memory, scale=PIXEL_SCALE, offset=PIXEL_OFFSET)

    found: list[tuple[str, Callable[[], object]]] = [(FRAMES_IN, frames_in)]

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
            found.append((name, lambda: module(*args, **kwargs)))

        return module.register_forward_pre_hook(hook, with_kwargs=True)

    handles = [watch(name, module) for name, module in engine.stages.items()]
    with engine.on_stream():
        engine.run_eagerly(batch)
    for handle in handles:
        handle.remove()
    found.append((FRAMES_OUT, frames_out))
    return found


def capture_work(engine: CudaGraphEngine, work: Callable[[], object]) -> Callable[[], object]:
    """Capture work of its own pool; without graphs, return it as it is."""
    if not engine.graph_sizes:
        return work
    graph = torch.cuda.CUDAGraph()
    with engine.on_stream():
        for _ in range(WARM_UP_RUNS):
            work()
        stream = torch.cuda.current_stream()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            kept = work()

    def replay(_: object = kept) -> None:
        graph.replay()

    return replay
