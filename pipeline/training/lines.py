"""Lines drawn from a picture: the control image of the sketch control network."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)
"""Rec. 601."""
FINE_PX = 3
COARSE_PX = 9
"""Sides of the two means whose difference is a line (XDoG, Winnemoeller et al. 2012)."""
SHARPNESS = 12.0
"""Slope between white and black: soft, so that a line does not flicker on and off."""


def draw_lines(pixels: Tensor) -> Tensor:
    """Dark strokes on white, as the released sketch network was shown.

    Args:
        pixels: (B, 3, H, W) in [-1, 1].

    Returns:
        (B, 3, H, W) in [0, 1], grey.
    """
    luma = torch.einsum("bchw,c->bhw", pixels, pixels.new_tensor(LUMA)).unsqueeze(1)
    away = blur(luma, FINE_PX) - blur(luma, COARSE_PX)
    lines = 1.0 - (SHARPNESS * -away).clamp(0.0, 1.0)
    return lines.expand(-1, 3, -1, -1)


def blur(x: Tensor, side_px: int) -> Tensor:
    """The mean of a square around every pixel; edges repeat."""
    reach = side_px // 2
    return F.avg_pool2d(F.pad(x, (reach,) * 4, mode="replicate"), side_px, stride=1)
