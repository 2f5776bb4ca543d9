"""Pictures blurred until nothing in them can be made out."""

from __future__ import annotations

import cv2
from av import VideoFrame

from stream import frames

CELLS = 12
"""Along the longer side: what is left of a picture."""


def blur(frame: VideoFrame) -> None:
    """Blur a ``yuv420p`` frame, in place."""
    longest = max(frame.width, frame.height)
    cells = (
        max(1, round(CELLS * frame.width / longest)),
        max(1, round(CELLS * frame.height / longest)),
    )
    for index in range(3):
        plane = frames.to_plane(frame, index)
        means = cv2.resize(plane, cells, interpolation=cv2.INTER_AREA)
        plane[:] = cv2.resize(means, plane.shape[::-1], interpolation=cv2.INTER_LINEAR)


def to_blurred(picture: VideoFrame) -> VideoFrame:
    """Return a picture of any pixel format blurred, as a new ``yuv420p`` frame."""
    frame = picture.reformat(
        picture.width // 2 * 2, picture.height // 2 * 2, format="yuv420p", threads=1
    )
    # Of a frame that needs no change reformat() returns the frame itself.
    blurred = VideoFrame.from_ndarray(frame.to_ndarray(), "yuv420p")
    blur(blurred)
    return blurred
