"""The sign in a picture that stands still: a beating pause mark and a word, in a corner."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from av import VideoFrame
from numpy.typing import NDArray

from stream import frames

WORD = "paused"
BEAT_S = 1.2
"""From one beat of the mark to the next."""
_BEATS = 12  # drawings in one beat
_SHARE = 12  # of the picture's height
_FONT = cv2.FONT_HERSHEY_SIMPLEX
# BT.601 limited range: a dark ground, a light word, the page's orange.
_GROUND, _LIGHT = 28, 225
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
    planes = _make_sign(frame.width, frame.height, beat)
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
def _make_sign(frame_width: int, frame_height: int, beat: int) -> _Planes:
    """Draw Y, U and V for a frame's size; only the mark where there is no room for the word."""
    height = min(max(16, frame_height // _SHARE), 96) // 4 * 4
    unit = height // 4
    scale = height / 2 / cv2.getTextSize(WORD, _FONT, 1.0, 1)[0][1]
    thickness = max(1, round(height / 20))
    word_width = cv2.getTextSize(WORD, _FONT, scale, thickness)[0][0]
    width = (height + word_width + unit) // 2 * 2
    has_word = width + height <= frame_width
    luma = np.full((height, width if has_word else height), _GROUND, np.uint8)
    chroma = np.full((2, height // 2, luma.shape[1] // 2), 128, np.uint8)
    if has_word:
        at = (height, height - height // 4 - thickness // 2)
        cv2.putText(luma, WORD, at, _FONT, scale, _LIGHT, thickness, cv2.LINE_AA)
    glow = 0.35 + 0.65 * abs(1 - 2 * beat / _BEATS)
    for left in (unit, unit * 5 // 2):
        rows, columns = slice(unit, 3 * unit), slice(left, left + max(2, unit * 2 // 3))
        luma[rows, columns] = round(_GROUND + glow * (_ORANGE[0] - _GROUND))
        half = (slice(unit // 2, 3 * unit // 2), slice(left // 2, columns.stop // 2))
        for plane, colour in zip(chroma, _ORANGE[1:], strict=True):
            plane[half] = round(128 + glow * (colour - 128))
    return luma, chroma[0], chroma[1]
