"""Cards as their data sheets have them, and what share of that a single stream reaches."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.cost.count import Kernel, Work

BANDWIDTH_SHARE = 0.8
"""Of the data sheet's bandwidth, for launches that only move memory."""
SHORTEST_LAUNCH_S = 2.5e-6
"""A launch inside a graph takes no less, its gap to the next included."""
BUS_BYTES_PER_S = 20e9
"""PCI Express 4, 16 lanes, pinned memory."""
COPY_START_S = 10e-6


@dataclass(frozen=True)
class Card:
    """One card; half precision with sums in single precision, without sparsity."""

    name: str
    peak_flops: float
    """Per second, by the data sheet."""
    bandwidth_bytes: float
    """Per second, by the data sheet."""
    matrix_share: float
    """Of the peak, that convolutions and products reach on one or a few pictures."""
    why: str
    """Where that share comes from."""

    def estimate_s(self, work: Work) -> float:
        """Return how long a stage takes, launch by launch."""
        return sum(self._launch_s(kernel) for kernel in work.kernels)

    def _launch_s(self, kernel: Kernel) -> float:
        arithmetic_s = kernel.flops / (self.peak_flops * self.matrix_share)
        memory_s = kernel.traffic_bytes / (self.bandwidth_bytes * BANDWIDTH_SHARE)
        return max(arithmetic_s, memory_s, SHORTEST_LAUNCH_S)


def copies_s(size_px: int) -> float:
    """Return how long one I420 frame takes to the card and back."""
    return 2 * (COPY_START_S + size_px**2 * 1.5 / BUS_BYTES_PER_S)


CARDS = (
    Card(
        "RTX 4090",
        peak_flops=165.2e12,
        bandwidth_bytes=1008e9,
        matrix_share=0.6,
        why="a consumer card at full clock, with a cache that holds a picture's features",
    ),
    Card(
        "L4",
        peak_flops=121e12,
        bandwidth_bytes=300e9,
        matrix_share=0.4,
        why="72 W do not hold the clock that the peak is computed at",
    ),
    Card(
        "A100 SXM 80 GB",
        peak_flops=312e12,
        bandwidth_bytes=2039e9,
        matrix_share=0.45,
        why="brings the paper's times at 1024 out within a tenth (below)",
    ),
    Card(
        "H100 SXM",
        peak_flops=989.4e12,
        bandwidth_bytes=3350e9,
        matrix_share=0.35,
        why="one picture does not fill its 132 multiprocessors",
    ),
)
