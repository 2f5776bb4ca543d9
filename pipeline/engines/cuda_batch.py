"""The fixed memory of a CUDA graph: what every batch is written into and read out of.

Device tensors whose addresses never change, and pinned slots beside them through which they are
filled and read without the host waiting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.engines.engine import Conditioning, Image, Job, Size
from pipeline.engines.seats import Seat, Seats
from pipeline.noise import make_noise
from pipeline.translate import StepInputs

SLOTS = 2
"""Batches that may be under way: one is computed while the next is copied."""


@dataclass(frozen=True)
class BatchShape:
    """What is fixed while an engine lives."""

    rows: int
    """Of the largest batch."""
    size: Size
    latent_channels: int
    tokens: tuple[int, int]
    """(T, D) of a conditioning."""
    pooled: int
    dtype: torch.dtype
    """Of everything but the frames."""

    @property
    def frame(self) -> tuple[int, int]:
        """One I420 frame."""
        return self.size.height * 3 // 2, self.size.width

    @property
    def noise(self) -> tuple[int, int, int]:
        """One row's noise."""
        return self.latent_channels, self.size.height // 8, self.size.width // 8


class Slot:
    """Pinned memory for one batch on its way in and out."""

    def __init__(self, shape: BatchShape) -> None:
        rows = shape.rows

        def pinned(*sizes: int, dtype: torch.dtype = shape.dtype) -> Tensor:
            return torch.zeros((rows, *sizes), dtype=dtype, pin_memory=True)

        self.frames = pinned(*shape.frame, dtype=torch.uint8)
        self.noise = pinned(*shape.noise)
        self.tokens = pinned(*shape.tokens)
        self.pooled = pinned(shape.pooled)
        self.settings = torch.zeros((2, rows), dtype=shape.dtype, pin_memory=True)
        self.results = pinned(*shape.frame, dtype=torch.uint8)
        self.finished = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        """After the last copy out. Blocking: the host sleeps meanwhile, and does not spin."""
        self.is_taken = False


class StaticBatch:
    """The memory that graphs are captured over. Everything here runs on the current stream."""

    def __init__(self, shape: BatchShape, device: torch.device) -> None:
        rows = shape.rows

        def static(*sizes: int, dtype: torch.dtype = shape.dtype) -> Tensor:
            return torch.zeros((rows, *sizes), dtype=dtype, device=device)

        self.shape = shape
        self.settings = torch.zeros((2, rows), dtype=shape.dtype, device=device)
        pixels = static(3, shape.size.height, shape.size.width)
        self.inputs = StepInputs(
            images=static(*shape.frame, dtype=torch.uint8),
            memory=pixels.contiguous(memory_format=torch.channels_last),
            noise=static(*shape.noise),
            tokens=static(*shape.tokens),
            pooled=static(shape.pooled),
            strength=self.settings[0].view(rows, 1, 1, 1),
            stability=self.settings[1].view(rows, 1, 1, 1),
        )
        self.results = static(*shape.frame, dtype=torch.uint8)
        self._seats = Seats(rows, self._save_memory, self._load_memory)
        self._seeds: list[int | None] = [None] * rows
        self._conditionings: list[Conditioning | None] = [None] * rows

    def rows(self, batch: int) -> StepInputs:
        """Return the first ``batch`` rows of the inputs; the same memory."""
        return StepInputs(*(tensor[:batch] for tensor in self.inputs))

    def keep(self, results: Tensor, memory: Tensor) -> None:
        """Store what a step returned where it outlives the step."""
        batch = len(results)
        self.results[:batch].copy_(results)
        self.inputs.memory[:batch].copy_(memory)

    def fill(self, slot: Slot, jobs: Sequence[Job], batch: int) -> list[int]:
        """Write jobs into the first ``batch`` rows; the slot must not be under way.

        Returns:
            the row of each job.
        """
        seats = self._seats.seat([job.state for job in jobs], batch)
        for job, seat in zip(jobs, seats, strict=True):
            np.copyto(slot.frames[seat.row].numpy(), job.image)
            self._fill_settings(slot, job, seat)
            self._fill_noise(slot, job, seat.row)
            self._fill_conditioning(slot, job, seat.row)
        self.inputs.images[:batch].copy_(slot.frames[:batch], non_blocking=True)
        self.settings.copy_(slot.settings, non_blocking=True)
        return [seat.row for seat in seats]

    def fetch(self, slot: Slot, batch: int) -> None:
        """Send the first ``batch`` results on their way out, and mark where they end."""
        slot.results[:batch].copy_(self.results[:batch], non_blocking=True)
        slot.finished.record()

    def _fill_settings(self, slot: Slot, job: Job, seat: Seat) -> None:
        settings = slot.settings.numpy()
        settings[0, seat.row] = job.settings.strength
        settings[1, seat.row] = 0.0 if seat.is_first else job.settings.stability

    def _fill_noise(self, slot: Slot, job: Job, row: int) -> None:
        seed = job.settings.seed
        if self._seeds[row] != seed:
            self._send(slot.noise, self.inputs.noise, row, make_noise(seed, self.shape.noise))
            self._seeds[row] = seed

    def _fill_conditioning(self, slot: Slot, job: Job, row: int) -> None:
        conditioning = job.conditioning
        if self._conditionings[row] is not conditioning:
            self._send(slot.tokens, self.inputs.tokens, row, conditioning.tokens)
            self._send(slot.pooled, self.inputs.pooled, row, conditioning.pooled)
            self._conditionings[row] = conditioning

    def _send(self, pinned: Tensor, static: Tensor, row: int, values: NDArray[np.float32]) -> None:
        if not values.size:
            return
        np.copyto(pinned[row].numpy(), values, casting="same_kind")
        static[row].copy_(pinned[row], non_blocking=True)

    def _save_memory(self, row: int) -> Tensor:
        return self.inputs.memory[row].clone()

    def _load_memory(self, row: int, memory: Tensor | None) -> None:
        if memory is None:
            self.inputs.memory[row].zero_()
        else:
            self.inputs.memory[row].copy_(memory)


def read_results(slot: Slot, rows: Sequence[int]) -> list[Image]:
    """Return new arrays of the given rows; only after the slot's event."""
    return [np.array(slot.results[row].numpy()) for row in rows]
