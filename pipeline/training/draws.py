"""Chance in training: every number drawn belongs to its step, so that a resumed run agrees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Place:
    """Where in a run something is drawn."""

    seed: int
    step: int
    turn: int = 0
    """Which optimizer's."""
    repeat: int = 0
    part: int = 0
    """Which of the batches that a step accumulates, over all processes."""


class Draw:
    """The random numbers of one batch: the same for the same place on every machine."""

    def __init__(self, place: Place, progress: float = 0.0, device: str = "cpu") -> None:
        entropy = (place.seed, place.step, place.turn, place.repeat, place.part)
        self.numpy = np.random.default_rng(entropy)
        # From the processor's generator: a device's own numbers differ from kind to kind.
        self._torch = torch.Generator().manual_seed(int(self.numpy.integers(2**62)))
        self._device = device
        self.progress = progress
        """How far the run is, in [0, 1)."""

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal."""
        return torch.randn(tuple(shape), generator=self._torch).to(self._device)

    def uniform(self, count: int) -> Tensor:
        """(count,) in [0, 1)."""
        return torch.rand(count, generator=self._torch).to(self._device)

    def integers(self, low: int, high: int, count: int) -> Tensor:
        """(count,) int64 in [low, high)."""
        return torch.randint(low, high, (count,), generator=self._torch).to(self._device)
