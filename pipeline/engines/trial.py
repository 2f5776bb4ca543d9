"""Frames and settings that stand for any others: to compare engines, and to measure them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.engines.cuda_batch import BatchShape
from pipeline.engines.engine import Conditioning, Job, Settings, TemporalState

TRIAL_SETTINGS = ((0.4, 0.0), (0.9, 0.5))
"""Strength and stability."""


def make_trial(shape: BatchShape, batch: int) -> Iterator[list[Job]]:
    """Make four batches for the same new sessions: two inputs at each of two settings."""
    random = np.random.default_rng(0)
    states = [TemporalState() for _ in range(batch)]
    for strength, stability in TRIAL_SETTINGS:
        for _ in range(2):
            yield [
                Job(
                    random.integers(0, 256, shape.frame, dtype=np.uint8),
                    Conditioning(
                        "a trial",
                        random.standard_normal(shape.tokens, dtype=np.float32),
                        random.standard_normal(shape.pooled, dtype=np.float32),
                    ),
                    Settings(strength, row, stability),
                    state,
                )
                for row, state in enumerate(states)
            ]
