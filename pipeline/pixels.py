"""uint8 images to float tensors and back: the only place with value ranges."""

from __future__ import annotations

import torch
from torch import Tensor

PIXEL_SCALE = 2.0 / 255.0
PIXEL_OFFSET = -1.0
"""Pixels are ``colour * PIXEL_SCALE + PIXEL_OFFSET`` for colours in [0, 255]."""


def to_pixels(images: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 in [0, 255] → (B, 3, H, W) float32 in [-1, 1]."""
    return images.permute(0, 3, 1, 2).to(torch.float32) * PIXEL_SCALE + PIXEL_OFFSET


def to_images(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) float in about [-1, 1] → (B, H, W, 3) uint8; what lies outside is clipped."""
    levels = (pixels.permute(0, 2, 3, 1).float() * 127.5 + 127.5).clamp(0.0, 255.0)
    return levels.round().to(torch.uint8)


def to_unit(pixels: Tensor) -> Tensor:
    """[-1, 1] → [0, 1], clipped: the range in which pictures are compared."""
    return (pixels * 0.5 + 0.5).clamp(0.0, 1.0)
