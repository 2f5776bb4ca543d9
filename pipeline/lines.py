"""Lines drawn from a picture: the control image of the sketch control network."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.config import Lines

LUMA = (0.299, 0.587, 0.114)
"""Rec. 601."""
COARSE = 3
"""How many times wider than a stroke its surroundings are."""
SHARPNESS = 12.0
"""Slope between white and black at middling detail: soft, so that a line does not flicker."""
SHARPEST = 16.0
"""How many times steeper it is at the most detail than at the least."""


def draw_lines(pixels: Tensor, lines: Lines | None = None) -> Tensor:
    """Dark strokes on white, as the released sketch network was shown.

    A line is where the mean of a small square is darker than that of a larger one (XDoG,
    Winnemoeller et al. 2012). Nothing here waits for the device or copies to it.

    Args:
        pixels: (B, 3, H, W) in [-1, 1].
        lines: what is asked for; None for the default.

    Returns:
        (B, 3, H, W) in [0, 1], grey.
    """
    lines = lines or Lines()
    fine_px = 2 * lines.thickness + 1
    red, green, blue = (pixels[:, at : at + 1] * weight for at, weight in enumerate(LUMA))
    luma = red + green + blue
    away = blur(luma, fine_px) - blur(luma, COARSE * fine_px)
    sharpness = SHARPNESS * SHARPEST ** (lines.detail - 0.5)
    drawn: Tensor = 1.0 - (sharpness * -away).clamp(0.0, 1.0)
    return torch.cat([drawn, drawn, drawn], dim=1)


def blur(x: Tensor, side_px: int) -> Tensor:
    """The mean of a square around every pixel; edges repeat."""
    reach = side_px // 2
    return F.avg_pool2d(F.pad(x, (reach,) * 4, mode="replicate"), side_px, stride=1)
