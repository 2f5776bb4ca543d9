"""The engine of a CUDA card: one graph per batch size, replayed.

Set up once, in this order: allocate → warm up → capture → compare with eager. Then every batch is
copy in → replay → copy out, on one stream, and the host sleeps until the batch has left.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config import check_size
from pipeline.engines.cuda_batch import SLOTS, BatchShape, Slot, StaticBatch, read_results
from pipeline.engines.engine import (
    Image,
    Job,
    PixelFormat,
    Size,
)
from pipeline.engines.trial import make_trial
from pipeline.errors import EngineClosed, EngineError, first_line
from pipeline.hub import Progress, tell_nobody
from pipeline.kernels import frames_to_pixels, launcher, pixels_to_frames
from pipeline.loaded import LoadedModel
from pipeline.pixels import PIXEL_OFFSET, PIXEL_SCALE
from pipeline.stability import hold_still
from pipeline.translate import Step, StepInputs

logger = logging.getLogger(__name__)

CAPTURING = threading.Lock()
"""Held while a graph is captured. Until that is over no other thread may capture, wait for the
whole device or give its memory back, each of which would break it: a swap of the model builds an
engine beside one that may fail meanwhile, be closed and be built again."""
BATCH_SIZES = (8, 4, 2, 1)
"""Largest first: captures that follow fit into the memory of the first."""
WARM_UP_RUNS = 3
LARGEST_DIFFERENCE = 8
"""Of 255, between a replay and eager: half-precision sums in another order move a pixel by a few
levels, and a wrong graph moves it anywhere."""

TOO_LARGE = "batches of %d do not fit into the device's memory"


@dataclass(frozen=True)
class Ticket:
    """A batch under way."""

    slot: Slot
    rows: list[int]


class CudaGraphEngine:
    """Runs a model on one CUDA device, for several sessions in one batch.

    A graph replays fixed kernels on fixed addresses: whatever changes between frames is copied
    into static tensors first, and results are copied out of static tensors before the next
    replay. No Python value in ``model.step`` may change after construction, and its weights may
    be changed only in place.
    """

    pixel_format: PixelFormat = "yuv420p"

    def __init__(
        self,
        model: LoadedModel,
        size: Size,
        dtype: torch.dtype = torch.float16,
        batch_sizes: Sequence[int] | None = None,
        device: torch.device | None = None,
        on_progress: Progress = tell_nobody,
    ) -> None:
        """Allocate, warm up, capture, and compare; takes seconds.

        Args:
            model: on the device, in ``dtype``.
            size: of the pictures.
            dtype: of everything but the frames.
            batch_sizes: those to capture, as memory allows; None for 1, 2, 4 and 8.
            device: None for the current one.
            on_progress: called in this thread.

        Raises:
            EngineError: not even a batch of one fits into the device's memory.
        """
        batch_sizes = batch_sizes or BATCH_SIZES
        self.size = check_size(size, model.size_step_px)
        self.model = model.name
        self.styles = model.styles
        self.default_strength = model.default_strength
        self.encode_prompt = model.encode_prompt
        self.reason = ""
        """Why some or all graphs are off; empty while all are on."""
        self.differences: dict[int, int] = {}
        """Of each batch size's replay to eager at the start, the largest, of 255."""
        self._device = device or torch.device("cuda", torch.cuda.current_device())
        self._on_progress = on_progress
        self._step = model.step
        self.stages = model.stages
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._is_closed = False
        prepare_libraries()
        launcher.kernels_for(self._device)
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = self._make_stream()
        self.shape = BatchShape(
            max(batch_sizes), size, model.latent_channels, model.tokens, model.pooled, dtype
        )
        with self.on_stream():
            self._batch = StaticBatch(self.shape, self._device)
        self._slots = [Slot(self.shape) for _ in range(SLOTS)]
        self.max_batch = self._capture_all(sorted(batch_sizes, reverse=True))
        """Of the batch sizes, the largest that fits."""
        self._compare_with_eager()
        self._describe()

    def translate(self, jobs: Sequence[Job]) -> list[Image]:
        """See :class:`pipeline.engines.engine.Engine`."""
        return self.collect(self.submit(jobs))

    def submit(self, jobs: Sequence[Job]) -> Ticket:
        """Start a batch of 1 to ``max_batch`` jobs; at most two batches may be under way.

        Raises:
            EngineError: the device failed; or too many or too few jobs, too many batches, an
                image of another size.
        """
        self._check(jobs)
        slot = next((slot for slot in self._slots if not slot.is_taken), None)
        if slot is None:
            raise EngineError(f"{SLOTS} batches are under way; collect one before the next")
        batch = self._batch_size(len(jobs))
        try:
            with self.on_stream():
                rows = self._batch.fill(slot, jobs, batch)
                self.advance(batch)
                self._batch.fetch(slot, batch)
        except RuntimeError as error:
            raise EngineError(f"the CUDA device failed: {first_line(error)}") from error
        slot.is_taken = True
        return Ticket(slot, rows)

    def collect(self, ticket: Ticket) -> list[Image]:
        """Wait for a batch and return its pictures, as ``translate`` does.

        Raises:
            EngineError: the device failed, and with it this engine.
        """
        try:
            ticket.slot.finished.synchronize()
        except RuntimeError as error:
            raise EngineError(f"the CUDA device failed: {first_line(error)}") from error
        ticket.slot.is_taken = False
        return read_results(ticket.slot, ticket.rows)

    def close(self) -> None:
        """See :class:`pipeline.engines.engine.Engine`."""
        if not self._is_closed:
            self._is_closed = True
            for graph in self._graphs.values():
                graph.reset()
            self._graphs.clear()
            del self._step, self.stages, self.encode_prompt, self._batch, self._slots
            give_memory_back()

    def _check(self, jobs: Sequence[Job]) -> None:
        if self._is_closed:
            raise EngineClosed("the CUDA engine was used after it was closed")
        if not 1 <= len(jobs) <= self.max_batch:
            raise EngineError(f"a batch has 1 to {self.max_batch} jobs (got {len(jobs)})")
        for job in jobs:
            if job.image.shape != self.shape.frame:
                raise EngineError(
                    f"an image has the shape {self.shape.frame} (got {job.image.shape})"
                )

    def _make_stream(self) -> torch.cuda.Stream:
        """Make a stream whose work follows all that was done so far, such as loading weights."""
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        return stream

    @contextmanager
    def on_stream(self) -> Iterator[None]:
        """Send work to the engine's stream, as its own work is."""
        with torch.no_grad(), torch.cuda.stream(self._stream):
            yield

    def _batch_size(self, jobs: int) -> int:
        return min((size for size in self._graphs if size >= jobs), default=jobs)

    @property
    def graph_sizes(self) -> list[int]:
        """Batch sizes that have a graph."""
        return sorted(self._graphs)

    def static_rows(self, batch: int) -> StepInputs:
        """Return the first ``batch`` rows of what graphs read; the next batch overwrites them."""
        return self._batch.rows(batch)

    def advance(self, batch: int) -> None:
        """Replay the first ``batch`` rows, or run them eagerly where there is no graph."""
        graph = self._graphs.get(batch)
        if graph is not None:
            try:
                graph.replay()
            except RuntimeError as error:
                self._turn_off([batch], f"the graph of batch {batch} failed: {first_line(error)}")
            else:
                return
        self.run_eagerly(batch)

    def run_eagerly(self, batch: int) -> None:
        """Advance the first ``batch`` rows: what a graph captures."""
        self._batch.keep(*translate_frames(self._step, self._batch.rows(batch)))

    def _capture_all(self, sizes: Sequence[int]) -> int:
        """Capture the batch sizes that fit, and return the largest."""
        fitting: list[int] = []
        for done, batch in enumerate(sizes):
            self._tell(f"choosing kernels and capturing batches of {batch}", done / len(sizes))
            try:
                self._capture(batch)
                fitting.append(batch)
            except torch.OutOfMemoryError:
                logger.warning(TOO_LARGE, batch)
            give_memory_back()
        if not fitting:
            raise self._does_not_fit()
        return fitting[0]

    def _does_not_fit(self) -> EngineError:
        return EngineError(
            f"{self.model} at {self.size} does not fit into the memory of {self._card()}; "
            "choose a smaller --size, or close what else uses the card"
        )

    def _capture(self, batch: int) -> None:
        """Warm up and capture one batch size, giving up what fails: own kernels, then graphs."""
        try:
            with self.on_stream():
                for _ in range(WARM_UP_RUNS):
                    self.run_eagerly(batch)
            if not self.reason:
                self._graphs[batch] = self._record(batch)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, EngineError) as error:
            # A broken capture may leave its stream unusable.
            with CAPTURING:
                torch.cuda.synchronize(self._device)
            self._stream = self._make_stream()
            if launcher.kernels_for(self._device).kernels is not None:
                launcher.turn_off(self._device, f"with own kernels, {first_line(error)}")
            elif not self.reason:
                self._turn_off(list(self._graphs), f"capturing failed: {first_line(error)}")
            else:
                raise EngineError(f"{self.model} does not run: {first_line(error)}") from error
            self._capture(batch)

    def _record(self, batch: int) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with (
            CAPTURING,
            self.on_stream(),
            # thread_local: other threads may use the device meanwhile, as decoders and loaders do.
            torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ),
        ):
            self.run_eagerly(batch)
        return graph

    def _compare_with_eager(self) -> None:
        """Turn the graphs off unless they give what eager gives, for whatever input and setting.

        Raises:
            EngineError: eager itself gives one picture whatever it is given, or the device failed.
        """
        for batch in list(self._graphs):
            self._tell(f"comparing batches of {batch} with eager", None)
            try:
                replayed = self._run_trial(batch)
                expected = self._run_trial_eagerly(batch)
            except EngineError as error:
                # Eager needs room beside the graphs.
                if not isinstance(error.__cause__, torch.OutOfMemoryError):
                    raise
                self._leave_out(batch)
                continue
            if len(np.unique(expected, axis=0)) < len(expected):
                raise EngineError(
                    f"{self.model} draws one picture from different ones: its weights are damaged "
                    f"or too large for {self.shape.dtype}"
                )
            difference = self.differences[batch] = int(np.abs(replayed - expected).max())
            if difference > LARGEST_DIFFERENCE:
                self._turn_off(
                    list(self._graphs),
                    f"a replay of batch {batch} differs from eager by {difference} of 255",
                )
                return

    def _run_trial(self, batch: int) -> NDArray[np.int16]:
        """Return what two inputs at two settings give, as (4 * batch, H * 3 / 2, W)."""
        trial = make_trial(self.shape, batch)
        return np.stack([image for jobs in trial for image in self.translate(jobs)], dtype=np.int16)

    def _run_trial_eagerly(self, batch: int) -> NDArray[np.int16]:
        graphs, self._graphs = self._graphs, {}
        try:
            return self._run_trial(batch)
        finally:
            self._graphs = graphs

    def _leave_out(self, batch: int) -> None:
        """Go on without a batch size for which there is no room."""
        logger.warning(TOO_LARGE, batch)
        self._graphs.pop(batch).reset()
        give_memory_back()
        if not self._graphs:
            raise self._does_not_fit()
        self.max_batch = max(self._graphs)

    def _turn_off(self, batches: Sequence[int], reason: str) -> None:
        """Go on without some graphs, and say so."""
        for batch in batches:
            self._graphs.pop(batch).reset()
        self.reason = reason
        self._describe()
        logger.error("%s; going on with %s", reason, self.device)

    def _tell(self, text: str, share: float | None) -> None:
        self._on_progress(f"{self.model} on {self._card()}: {text}", share)

    def _describe(self) -> None:
        major, minor = torch.cuda.get_device_capability(self._device)
        graphs = ", ".join(str(batch) for batch in self.graph_sizes)
        self.name = "cuda-graph" if graphs else "cuda-eager"
        self.device = (
            f"{self._card()} (SM {major}.{minor}), torch {torch.__version__} in "
            f"{str(self.shape.dtype).removeprefix('torch.')}, "
            + (f"graphs of batch {graphs}" if graphs else "no graphs")
            + (f" ({self.reason})" if self.reason else "")
            + f", {launcher.kernels_for(self._device).reason}"
        )

    def _card(self) -> str:
        return torch.cuda.get_device_name(self._device)


def translate_frames(step: Step, inputs: StepInputs) -> tuple[Tensor, Tensor]:
    """Translate a batch, from camera frames to frames, without a word to the host.

    Args:
        step: what draws.
        inputs: (B, H * 3 / 2, W) I420 in place of images; the rest as everywhere, in one dtype.

    Returns:
        frames (B, H * 3 / 2, W) uint8 I420, and the next frame's memory (B, 3, H, W).
    """
    height, width = inputs.memory.shape[-2:]
    pixels = frames_to_pixels(
        inputs.images, height, width, inputs.memory.dtype, scale=PIXEL_SCALE, offset=PIXEL_OFFSET
    )
    pixels = hold_still(pixels, inputs.memory, inputs.stability)
    drawn = step.draw(pixels, inputs.noise, inputs.tokens, inputs.pooled, inputs.strength)
    return pixels_to_frames(drawn, scale=PIXEL_SCALE, offset=PIXEL_OFFSET), pixels


def prepare_libraries() -> None:
    """Set what must be set before the first kernel is chosen, for the whole process.

    Nothing is set around the work itself and put back after it: of two engines at once, the one
    at work would put back what the one being built still captures with.
    """
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = True
    # Attention: flash, memory-efficient or plain. cuDNN's builds plans at first use, which a
    # capture may not.
    torch.backends.cuda.enable_flash_sdp(True)
    torch.backends.cuda.enable_mem_efficient_sdp(True)
    torch.backends.cuda.enable_math_sdp(True)
    torch.backends.cuda.enable_cudnn_sdp(False)


def give_memory_back() -> None:
    """Leave the card what torch keeps of it and nobody uses."""
    with CAPTURING:
        torch.cuda.empty_cache()
