"""What looks at pictures and says whether they may be shown; the border to ``stream``.

Free of torch, so that the server imports it in a millisecond.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class SafetyChecker(Protocol):
    """Looks at one picture at a time. Used from one thread only."""

    def is_unfit(self, image: NDArray[np.uint8]) -> bool:
        """Tell whether a picture, (H, W, 3) RGB, should not be shown."""

    def close(self) -> None:
        """Free everything. Calling it again does nothing."""


CheckerFactory = Callable[[], SafetyChecker]
"""Loads a checker, in its thread.

Raises:
    CheckpointError: its weights are missing, damaged or do not fit.
"""


def load_checker(folder: Path | None) -> SafetyChecker:
    """Load the published checker, from a folder or, for None, from the hub or its cache.

    Raises:
        CheckpointError: the weights are missing, damaged or do not fit.
    """
    from pipeline.safety_clip import ClipChecker, locate_checker

    return ClipChecker.load(locate_checker(folder))
