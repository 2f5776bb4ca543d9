"""What a tape's pictures are encoded by: one size, whatever comes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from aiortc.mediastreams import VIDEO_CLOCK_RATE, VIDEO_TIME_BASE
from av import VideoFrame
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace

from pipeline.engines import Size
from stream import frames
from stream.bitrate import EncoderPlan, full_bitrate_bps
from stream.encoders import open_x264_for_files
from stream.reformatters import reformat

MAX_BITRATE_BPS = 8_000_000
KEY_FRAME_EVERY_S = 2.0
"""A clip begins at one, and players jump to them."""
# What is watched again may be twice as good as what was sent.
_QUALITY = 2
_FRAME_RATE_HZ = 30
_BLACK = (16, 128, 128)


@dataclass(frozen=True, slots=True)
class TapedPacket:
    """One encoded picture or packet of sound, with its place on the server's clock."""

    data: bytes
    """A picture: H264 as in a byte stream. Sound: Opus."""
    at_s: float
    """``time.perf_counter()``."""
    duration_s: float
    is_sound: bool
    is_key_frame: bool = True


class TapeEncoder:
    """Encodes pictures of any size in one size; belongs to one thread."""

    def __init__(self, size: Size) -> None:
        self.size = size
        bitrate_bps = _QUALITY * full_bitrate_bps(size.width, size.height, MAX_BITRATE_BPS)
        plan = EncoderPlan(
            size.width, size.height, min(bitrate_bps, MAX_BITRATE_BPS), _FRAME_RATE_HZ
        )
        self._codec = open_x264_for_files(plan)
        self._start_s: float | None = None
        self._last_key_s: float | None = None

    def encode(
        self, frame: VideoFrame, at_s: float, *, force_key_frame: bool = False
    ) -> list[TapedPacket]:
        """Encode one frame.

        Args:
            frame: stays as it is.
            at_s: later than the frame before, by a tick of 1/90000 s at least.
            force_key_frame: a file begins here.
        """
        if self._start_s is None:
            self._start_s = at_s
        is_due = self._last_key_s is None or at_s - self._last_key_s >= KEY_FRAME_EVERY_S
        fitted = fit(frame, self.size)
        fitted.pts = round((at_s - self._start_s) * VIDEO_CLOCK_RATE)
        fitted.time_base = VIDEO_TIME_BASE
        fitted.pict_type = PictureType.I if is_due or force_key_frame else PictureType.NONE
        packets = self._codec.encode(fitted)
        if any(packet.is_keyframe for packet in packets):
            self._last_key_s = at_s
        return [
            TapedPacket(bytes(packet), at_s, 1 / _FRAME_RATE_HZ, False, packet.is_keyframe)
            for packet in packets
        ]


def fit(frame: VideoFrame, size: Size) -> VideoFrame:
    """Return a copy of a frame in a size, aspect kept, the rest black.

    A copy, since others read the frame, and encoders write its type into it.
    """
    if frames.is_sendable(frame) and (frame.width, frame.height) == (size.width, size.height):
        return frames.copy_frame(frame, frame)
    placement = frames.place(Size(frame.width, frame.height), size)
    content = reformat(
        frame,
        placement.width,
        placement.height,
        "yuv420p",
        dst_colorspace=Colorspace.ITU601,
        dst_color_range=ColorRange.MPEG,
        interpolation="AREA" if placement.width < frame.width else "BILINEAR",
        threads=1,
    )
    if (placement.width, placement.height) == (size.width, size.height):
        return content
    canvas = VideoFrame(size.width, size.height, "yuv420p")
    for index, (step, black) in enumerate(zip((1, 2, 2), _BLACK, strict=True)):
        plane, picture = frames.to_plane(canvas, index), frames.to_plane(content, index)
        plane[:] = np.uint8(black)
        x, y = placement.x // step, placement.y // step
        plane[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return canvas
