"""How much consecutive pictures differ that should not: measures on films of pictures.

All are in levels of 255. On a camera that stands still every difference is flicker; on a moving
one the picture before is first warped along the optical flow of the camera's own frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.engines.engine import Image

Levels = Image | NDArray[np.float32]

LARGEST_ROUND_TRIP_PX = 1.0
"""A pixel that flow and counterflow do not bring back so near is hidden in one of the frames."""
LARGEST_MISMATCH = 16.0
"""Levels by which the camera's own warped frame may be wrong: beyond, the flow is."""


def measure_still(pictures: Sequence[Image]) -> float:
    """The mean difference of consecutive (H, W, 3) pictures of one scene."""
    return float(
        np.mean([difference(before, after).mean() for before, after in pairwise(pictures)])
    )


@dataclass(frozen=True)
class Motion:
    """Where the pixels of a frame were in the frame before."""

    flow: NDArray[np.float32]
    """(H, W, 2): where each was, less where it is, in pixels."""
    is_followed: NDArray[np.bool_]
    """(H, W): whether it was seen there at all."""


def follow(frames: Sequence[Image]) -> list[Motion]:
    """Follow the camera's (H, W, 3) frames, from the second on."""
    motions = []
    for frame, next_frame in pairwise(frames):
        back = find_flow(next_frame, frame)
        motions.append(Motion(back, find_followed(frame, next_frame, back)))
    return motions


def measure_moving(motions: Sequence[Motion], pictures: Sequence[Image]) -> float:
    """The warping error of ``pictures`` along the ``motions`` of the frames they were made from.

    As in "Learning Blind Video Temporal Consistency" (arXiv 1808.00449, section 4.1), with the
    mean of differences and not of their squares.

    Args:
        motions: of the camera's frames.
        pictures: one for each frame, of the same size; so one more than there are motions.

    Returns:
        The mean over all pixels that can be followed from one frame to the next.
    """
    errors = [
        difference(warp(before, motion.flow), after).mean(axis=2)[motion.is_followed]
        for (before, after), motion in zip(pairwise(pictures), motions, strict=True)
    ]
    return float(np.concatenate(errors).mean())


def difference(image: Levels, other: Levels) -> NDArray[np.float32]:
    """Absolute differences, in levels."""
    return np.asarray(np.abs(np.asarray(image, np.float32) - other), np.float32)


def find_flow(image: Image, other: Image) -> NDArray[np.float32]:
    """(H, W, 2): where each pixel of ``image`` is in ``other``, less where it is, in pixels.

    Dense inverse search (arXiv 1603.03590).
    """
    grey, other_grey = (cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in (image, other))
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return np.asarray(search.calc(grey, other_grey, None), np.float32)


def warp(values: Levels, flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """What lies where ``flow`` points to, (H, W, C)."""
    height, width = flow.shape[:2]
    columns, rows = np.meshgrid(
        np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    )
    source = np.asarray(values, np.float32)
    return np.asarray(
        cv2.remap(
            source, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    )  # fmt: skip


def find_followed(frame: Image, next_frame: Image, back: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(H, W): which pixels of ``next_frame`` were in ``frame`` too, where ``back`` says."""
    forth = warp(find_flow(frame, next_frame), back)
    round_trip = np.linalg.norm(back + forth, axis=2)
    mismatch = difference(warp(frame, back), next_frame).mean(axis=2)
    return np.asarray((round_trip < LARGEST_ROUND_TRIP_PX) & (mismatch < LARGEST_MISMATCH))


def draw_disc(background: Image, left_px: int, contrast: float) -> tuple[Image, NDArray[np.bool_]]:
    """Lay a disc, a third as high as the picture, over it.

    Args:
        background: (H, W, 3).
        left_px: its left edge; it may lie outside.
        contrast: levels that it is lighter than what it covers; negative for darker.

    Returns:
        The picture, and which of its pixels (H, W) the disc covers.
    """
    height, width = background.shape[:2]
    radius = height // 6
    rows, columns = np.mgrid[:height, :width]
    inside = np.hypot(rows - height // 2, columns - left_px - radius) <= radius
    levels = background + np.float32(contrast) * inside[..., None]
    return np.clip(levels, 0, 255).astype(np.uint8), inside
