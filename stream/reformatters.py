"""Conversions of frames that several threads look at."""

from __future__ import annotations

import threading
from typing import Any

from av import VideoFrame
from av.video.reformatter import VideoReformatter

_own = threading.local()


def reformat(
    frame: VideoFrame,
    width: int | None = None,
    height: int | None = None,
    pixel_format: str | None = None,
    **how: Any,
) -> VideoFrame:
    """Convert a frame as its ``reformat()`` does, by a converter of the calling thread's own.

    A frame's own converter belongs to whoever has the frame. Two threads in it at once, as the
    encoders of two viewers may be, are a segmentation fault (PyAV 18.1).
    """
    if not hasattr(_own, "reformatter"):
        _own.reformatter = VideoReformatter()
    converted: VideoFrame = _own.reformatter.reformat(frame, width, height, pixel_format, **how)
    return converted
