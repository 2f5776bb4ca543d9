"""The noise that a picture is drawn from: one per seed, the same on every frame and engine."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=64)
def make_noise(seed: int, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Standard normal noise (C, h, w) for a seed in [0, 2**31); shared, so read only.

    A larger picture begins with the numbers of no smaller one: the look of a seed belongs to
    its size.
    """
    noise = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    noise.flags.writeable = False
    return noise
