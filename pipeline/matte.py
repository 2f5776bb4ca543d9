"""From a person's coarse mask to a matte of the picture: steady where still, sharp at edges.

A mask belongs to the frame that it was made from. What is kept of the frame before is only what
the picture itself says is unchanged: where its colours moved, or the mask changed by more than
a waver, the new mask counts alone. So a person who moves has no trail.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.person_mask import Mask

LONGEST_MEMORY = 0.8
"""The share of the past in a still part."""
STILL = 4.0
MOVING = 10.0
"""Differences of colour levels, of a mean over NOISE_PX a side: below the first it is sensor
noise, above the second it is motion."""
NOISE_PX = 5
REACH_PX = 9
"""What lies this near to a moving pixel follows too: an edge is beside what it bounds."""
WAVER = 0.4
"""A mask that changed by more did not waver: something came or went."""

GUIDE_PX = 9
"""The window in which a mask is explained by brightness, and so drawn to the picture's edges."""
FLATNESS = 5e-4
"""Variances of brightness in [0, 1]: in flatter windows the mask itself counts."""
CLEAR = 0.15
SOLID = 0.85
"""The refined mask below the first is nothing, above the second all: no veil over a room."""

Plane = NDArray[np.uint8]


class Matte:
    """Follows the mask of one picture after another."""

    def __init__(self) -> None:
        self._last: tuple[NDArray[np.uint8], Mask] | None = None

    def follow(self, image: NDArray[np.uint8], mask: Mask) -> Mask:
        """Return a picture's mask, held where nothing has happened since the picture before.

        Args:
            image: (S, S, 3), what ``mask`` was made from.
            mask: (S, S) in [0, 1].
        """
        if self._last is not None:
            mask = hold_still(image, mask, *self._last)
        self._last = image, mask
        return mask


def hold_still(
    image: NDArray[np.uint8], mask: Mask, image_before: NDArray[np.uint8], mask_before: Mask
) -> Mask:
    """Average the still parts of a mask with the mask before."""
    # By channels, since NumPy's max along the last axis takes thirty times as long.
    red, green, blue = cv2.split(cv2.absdiff(image, image_before))
    largest = cv2.max(cv2.max(red, green), blue)
    motion = cv2.boxFilter(largest, cv2.CV_32F, (NOISE_PX, NOISE_PX))
    motion = np.clip((motion - STILL) / (MOVING - STILL), 0.0, 1.0)
    motion = cv2.dilate(motion, np.ones((REACH_PX, REACH_PX), np.uint8))
    change = mask_before - mask
    memory = LONGEST_MEMORY * (1.0 - motion)
    memory[np.abs(change) > WAVER] = 0.0
    held: Mask = mask + memory * change
    return held


def refine(mask: Mask, luma: Plane) -> Mask:
    """Return a mask at the size of a picture, its edge drawn to the picture's own.

    The fast guided filter (He and Sun 2015, arXiv 1505.00996): in each window of the small
    picture the mask is a linear function of brightness; the functions are enlarged, not the mask.

    Args:
        mask: (S, S) in [0, 1].
        luma: (H, W), the picture's brightness.

    Returns:
        (H, W) in [0, 1].
    """
    size = mask.shape[::-1]
    guide = cv2.resize(luma, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    guide *= np.float32(1 / 255)
    mean_guide, mean_mask = _mean(guide), _mean(mask)
    covariance = _mean(guide * mask) - mean_guide * mean_mask
    variance = _mean(guide * guide) - mean_guide * mean_guide
    slope = (covariance / (variance + FLATNESS)).astype(np.float32, copy=False)
    offset: Mask = mean_mask - slope * mean_guide
    to = (luma.shape[1], luma.shape[0])
    # 1/255 is in the slope, so that the picture's own bytes can be multiplied.
    slope = cv2.resize(_mean(slope) * (1 / 255), to, interpolation=cv2.INTER_LINEAR)
    offset = cv2.resize(_mean(offset), to, interpolation=cv2.INTER_LINEAR)
    matte = cv2.multiply(slope, luma, dtype=cv2.CV_32F)
    matte += offset
    matte -= np.float32(CLEAR)
    matte *= np.float32(1 / (SOLID - CLEAR))
    clipped: Mask = np.clip(matte, 0.0, 1.0, out=matte)
    return clipped


def _mean(values: Mask) -> Mask:
    mean: Mask = cv2.blur(values, (GUIDE_PX, GUIDE_PX))
    return mean
