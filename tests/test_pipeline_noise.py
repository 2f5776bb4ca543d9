"""The noise of a seed."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.noise import make_noise


def test_noise_belongs_to_its_seed() -> None:
    """A seed gives the same noise every time, another seed another."""
    make_noise.cache_clear()
    first = np.array(make_noise(7, (4, 16, 16)))
    make_noise.cache_clear()
    assert (make_noise(7, (4, 16, 16)) == first).all()
    assert np.abs(make_noise(8, (4, 16, 16)) - first).mean() > 0.5


def test_noise_is_standard_normal() -> None:
    """Mean 0, variance 1, float32."""
    noise = make_noise(2**31 - 1, (16, 64, 64))
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1.0) < 0.02


def test_shared_noise_cannot_be_written() -> None:
    """The array that all sessions share is read only."""
    with pytest.raises(ValueError, match="read-only"):
        make_noise(0, (1, 2, 2))[0, 0, 0] = 1.0
