"""The sign in a picture that stands still: a beating pause mark in a corner.

It is the same in a mirror, as the page shows a camera, and needs no language.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from av import VideoFrame
from numpy.typing import NDArray

from stream import frames

BEAT_S = 1.2
"""From one beat of the mark to the next."""
_BEATS = 12  # drawings in one beat
_SHARE = 9  # of the picture's height
# BT.601 limited range: a dark ground, the page's orange.
_GROUND = 28
_ORANGE = (170, 85, 176)

_Planes = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]


def draw_sign(frame: VideoFrame, now_s: float) -> None:
    """Draw it over the bottom left of a ``yuv420p`` frame, in place.

    The place is the same for all moments, so that a later sign covers an earlier one.

    Args:
        frame: 16 pixels a side or more.
        now_s: says how bright the mark is.
    """
    beat = int(now_s / BEAT_S * _BEATS) % _BEATS
    planes = _make_sign(frame.height, beat)
    margin = planes[0].shape[0] // 4 * 2
    for index, plane in enumerate(planes):
        into = frames.to_plane(frame, index)
        height, width = plane.shape
        step = 1 if index == 0 else 2
        x = margin // step if margin // step + width <= into.shape[1] else 0
        bottom = into.shape[0] - (margin // step if x else 0)
        into[bottom - height : bottom, x : x + width] = plane


def repeat_with_sign(picture: VideoFrame, like: VideoFrame, now_s: float) -> VideoFrame:
    """Return a copy of ``picture``, ``yuv420p``, with the sign and the pts of ``like``."""
    copy = frames.copy_frame(picture, like)
    draw_sign(copy, now_s)
    return copy


@lru_cache(maxsize=4 * _BEATS)
def _make_sign(frame_height: int, beat: int) -> _Planes:
    """Draw Y, U and V for a frame's height: two bars, as high as half of the ground."""
    side = min(max(16, frame_height // _SHARE), 128) // 16 * 16
    unit = side // 8
    luma = np.full((side, side), _GROUND, np.uint8)
    chroma = np.full((2, side // 2, side // 2), 128, np.uint8)
    glow = 0.35 + 0.65 * abs(1 - 2 * beat / _BEATS)
    for plane, step, dark, colour in (
        (luma, 1, _GROUND, _ORANGE[0]),
        (chroma[0], 2, 128, _ORANGE[1]),
        (chroma[1], 2, 128, _ORANGE[2]),
    ):
        of_step = unit // step
        for left in (2 * of_step, 5 * of_step):
            bar = slice(2 * of_step, 6 * of_step), slice(left, left + of_step)
            plane[bar] = round(dark + glow * (colour - dark))
    return luma, chroma[0], chroma[1]
