"""What keeps consecutive frames alike: where the camera's picture holds still, so does ours.

A one-step model turns the sensor's noise into strokes that change with every frame. The
camera's picture is therefore averaged over time before the model sees it, but only where
nothing moves: motion is followed at once, so a moving hand has no trail, and where most of the
picture has changed all of it is followed, so a scene cut has no ghost. The model's own output
is never fed back, which is known to collapse.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LONGEST_MEMORY = 0.95
"""The share of the past in a still part, at stability 1."""
STILL = 4.0 / 127.5
MOVING = 12.0 / 127.5
"""Differences of a patch's mean, on the scale of pixels in [-1, 1]: below the first it is
sensor noise, above the second it is motion; between them the two are mixed."""
STILL_DETAIL = 8.0 / 127.5
MOVING_DETAIL = 16.0 / 127.5
"""The same for the root mean square of a patch's differences: an edge that moves within a patch
may leave its mean as it was. Noise of 6 levels is still below the first."""
SAME_SCENE = 0.4
OTHER_SCENE = 0.6
"""Shares of the picture that move: above the second it is a cut, or a camera that turns. Flat
parts that the two scenes happen to share would else keep the old one's grain."""
PATCH_PX = 4
"""Means of so many pixels a side tell motion from noise: noise falls to a quarter in them."""


def hold_still(pixels: Tensor, memory: Tensor, stability: Tensor) -> Tensor:
    """Average the still parts of a picture with its past.

    Args:
        pixels: (B, 3, H, W) in [-1, 1]; H and W multiples of 4.
        memory: what this function returned for the frame before, or ``pixels`` for the first.
        stability: (B, 1, 1, 1) in [0, 1]; 0 returns ``pixels``.

    Returns:
        (B, 3, H, W): what the model should see, and the next frame's ``memory``.
    """
    difference = pixels - memory
    change = F.avg_pool2d(difference, PATCH_PX).abs().amax(dim=1, keepdim=True)
    motion = share(change, STILL, MOVING)
    detail = F.avg_pool2d(difference.square().mean(dim=1, keepdim=True), PATCH_PX).sqrt()
    motion = torch.maximum(motion, share(detail, STILL_DETAIL, MOVING_DETAIL))
    everywhere = share(motion.mean(dim=(2, 3), keepdim=True), SAME_SCENE, OTHER_SCENE)
    motion = torch.maximum(motion, everywhere)
    # A patch beside a moving one may hold the edge of what moves: it follows too.
    motion = F.max_pool2d(motion, 3, stride=1, padding=1)
    motion = F.interpolate(motion, scale_factor=float(PATCH_PX), mode="bilinear")
    past = LONGEST_MEMORY * (1.0 - (1.0 - stability) ** 3)
    return pixels - past * (1.0 - motion) * difference


def share(values: Tensor, none: float, whole: float) -> Tensor:
    """How far ``values`` are on the way from ``none`` to ``whole``, in [0, 1]."""
    return ((values - none) / (whole - none)).clamp(0.0, 1.0)
