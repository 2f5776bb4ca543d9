"""The learning rate over a run: it rises, holds, and falls to nothing."""

from __future__ import annotations

import math


def share_at(step: int, steps: int, warm_up_steps: int, decay_share: float) -> float:
    """Return the share of the full learning rate at a step (arXiv 2404.06395, section 4).

    Args:
        step: from 0.
        steps: of the whole run.
        warm_up_steps: the rate rises over these.
        decay_share: of the steps, the last, over which it falls; 0 for none.
    """
    warm_up = min(1.0, (step + 1) / warm_up_steps)
    left = (steps - step) / max(1.0, steps * decay_share)
    return warm_up * (1.0 - math.cos(math.pi * min(1.0, left))) / 2.0
