"""``av.VideoFrame`` ↔ uint8 image: fit, crop, resize, pts.

Frames leave as ``yuv420p`` in BT.601 limited range: VP8 knows no other (RFC 6386,
section 9.2), and a browser assumes it for H264 without colour description.
I420 images for the engine are in the same range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from av import VideoFrame
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from pipeline.engines import Image, PixelFormat, Size
from stream.reformatters import reformat

# AVColorSpace of what needs no other matrix: unspecified, BT.470BG, SMPTE 170M (= BT.601).
_BT601 = (2, 5, 6)
# The threads that swscale would start for each frame cost more than the work: 640x480 to
# 320x240 takes 1.5 ms with them and 0.5 ms without.
_THREADS = 1

MIN_SIDE_PX = 16
"""A macroblock's; the encoders take no less."""
MAX_ASPECT = 8
"""Beyond, swscale fails on what is left of the short side."""
MARK_ROWS = 24
"""How many lines at the top of the camera's picture can hold marks."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the camera's picture lies in the engine's image, in pixels."""

    x: int
    y: int
    width: int
    height: int


def place(source: Size, size: Size) -> Placement:
    """Return the largest centred area of ``source``'s aspect in ``size``, on even pixels."""
    ratio = min(size.width / source.width, size.height / source.height)
    width = min(_even(source.width * ratio), size.width)
    height = min(_even(source.height * ratio), size.height)
    x = (size.width - width) // 4 * 2
    y = (size.height - height) // 4 * 2
    return Placement(x, y, width, height)


def to_image(frame: VideoFrame, size: Size, pixel_format: PixelFormat) -> tuple[Image, Placement]:
    """Fit a frame into the engine's size, aspect kept; the rest repeats the edge.

    Args:
        frame: any size and pixel format; full-range (``yuvj420p``) and BT.709 are converted.
        size: even for ``"yuv420p"``.
        pixel_format: the engine's.

    Returns:
        The image, which may share the memory of a new frame and is not to be written to,
        and where in it the picture lies.
    """
    placement = place(Size(frame.width, frame.height), size)
    content = reformat(
        frame,
        placement.width,
        placement.height,
        pixel_format,
        dst_colorspace=Colorspace.ITU601 if pixel_format == "yuv420p" else None,
        dst_color_range=ColorRange.MPEG if pixel_format == "yuv420p" else None,
        interpolation="AREA" if placement.width < frame.width else "BILINEAR",
        threads=_THREADS,
    )
    if pixel_format == "rgb24":
        return _pad(_rgb_plane(content), placement, size), placement
    image = np.empty((size.height * 3 // 2, size.width), np.uint8)
    half = Size(size.width // 2, size.height // 2)
    chroma = Placement(
        placement.x // 2, placement.y // 2, placement.width // 2, placement.height // 2
    )
    luma, blue, red = _i420_planes(image, size)
    luma[:] = _pad(to_plane(content, 0), placement, size)
    blue[:] = _pad(to_plane(content, 1), chroma, half)
    red[:] = _pad(to_plane(content, 2), chroma, half)
    return image, placement


def to_frame(
    image: Image, placement: Placement, like: VideoFrame, pixel_format: PixelFormat
) -> VideoFrame:
    """Turn an engine's image into a frame of ``like``'s size, pts and time base.

    Args:
        image: the new frame may keep it; it must not be written to afterwards.
        placement: what :func:`to_image` returned for ``like``.
        like: the camera's frame.
        pixel_format: the engine's.

    Returns:
        A new ``yuv420p`` frame of even width and height (see :func:`output_size`), so that
        neither ``bypass`` nor another model changes the encoder's size.
    """
    size = output_size(like)
    content = to_content(image, placement, pixel_format)
    if pixel_format == "yuv420p" and Size(content.width, content.height) == size:
        return _stamp(content, like)
    # Size and format in one pass: a detour over I420 at the engine's size takes as long
    # and loses colour (docs/log.md).
    frame = reformat(
        content,
        size.width,
        size.height,
        "yuv420p",
        dst_colorspace=Colorspace.ITU601,
        dst_color_range=ColorRange.MPEG,
        interpolation="BILINEAR",
        threads=_THREADS,
    )
    return _stamp(frame, like)


def carry_marks(frame: VideoFrame, camera: VideoFrame) -> None:
    """Copy the top MARK_ROWS lines of ``camera`` into ``frame``, in place.

    Args:
        frame: what :func:`to_frame` returned for ``camera``.
        camera: stays as it is.
    """
    lines = as_sendable(camera)
    for index, rows in enumerate((MARK_ROWS, MARK_ROWS // 2, MARK_ROWS // 2)):
        to_plane(frame, index)[:rows] = to_plane(lines, index)[:rows]


def to_content(image: Image, placement: Placement, pixel_format: PixelFormat) -> VideoFrame:
    """Return the camera's part of an engine's image, without pts. Shares memory if it can."""
    bottom, right = placement.y + placement.height, placement.x + placement.width
    if pixel_format == "rgb24":
        return VideoFrame.from_numpy_buffer(
            image[placement.y : bottom, placement.x : right], "rgb24"
        )
    height, width = image.shape[0] * 2 // 3, image.shape[1]
    if (placement.width, placement.height) == (width, height):
        return VideoFrame.from_numpy_buffer(image, "yuv420p")
    content = np.empty((placement.height * 3 // 2, placement.width), np.uint8)
    planes = zip(
        _i420_planes(content, Size(placement.width, placement.height)),
        _i420_planes(image, Size(width, height)),
        (1, 2, 2),
        strict=True,
    )
    for into, plane, step in planes:
        into[:] = plane[placement.y // step : bottom // step, placement.x // step : right // step]
    return VideoFrame.from_numpy_buffer(content, "yuv420p")


def find_oddity(frame: VideoFrame, max_pixels: int) -> str | None:
    """Return one sentence if a frame is of a shape that no camera has; None: it is well."""
    width, height = frame.width, frame.height
    shape = f"a frame of {width}x{height}"
    if width * height > max_pixels:
        return f"{shape} is too large; {max_pixels} pixels is the limit"
    if min(width, height) < MIN_SIDE_PX:
        return f"{shape} is too small; each side has at least {MIN_SIDE_PX} pixels"
    if max(width, height) > MAX_ASPECT * min(width, height):
        return f"{shape} is too narrow; a side has at most {MAX_ASPECT} times the other's pixels"
    return None


def is_sendable(frame: VideoFrame) -> bool:
    """Tell whether :func:`to_camera_frame` costs nothing."""
    size = output_size(frame)
    return (
        frame.format.name == "yuv420p"
        and (frame.width, frame.height) == (size.width, size.height)
        and frame.colorspace in _BT601
        and frame.color_range != ColorRange.JPEG
    )


def to_camera_frame(frame: VideoFrame) -> VideoFrame:
    """Make the camera's own frame ready to be sent; ``frame`` is given away."""
    return _stamp(as_sendable(frame), frame)


def as_sendable(frame: VideoFrame) -> VideoFrame:
    """Return the camera's picture as it would be sent: ``frame`` itself, or a converted one."""
    return frame if is_sendable(frame) else _to_sendable(frame)


def to_square(frame: VideoFrame, side_px: int) -> NDArray[np.uint8]:
    """Return a picture as (side_px, side_px, 3) RGB; its aspect is not kept."""
    square = reformat(frame, side_px, side_px, "rgb24", interpolation="AREA", threads=_THREADS)
    return np.ascontiguousarray(_rgb_plane(square))


def copy_camera_frame(frame: VideoFrame) -> VideoFrame:
    """Return the camera's own frame ready to be sent; ``frame`` stays as it is."""
    return copy_frame(frame, frame) if is_sendable(frame) else _stamp(_to_sendable(frame), frame)


def _to_sendable(frame: VideoFrame) -> VideoFrame:
    size = output_size(frame)
    return reformat(
        frame,
        size.width,
        size.height,
        "yuv420p",
        dst_colorspace=Colorspace.ITU601,
        dst_color_range=ColorRange.MPEG,
        threads=_THREADS,
    )


def copy_frame(frame: VideoFrame, like: VideoFrame) -> VideoFrame:
    """Return a copy of a ``yuv420p`` frame, with the pts and time base of ``like``."""
    return _stamp(VideoFrame.from_ndarray(frame.to_ndarray(), "yuv420p"), like)


def output_size(frame: VideoFrame) -> Size:
    """Return the size that a frame is sent in: its own, made even for ``yuv420p``."""
    return Size(max(2, frame.width // 2 * 2), max(2, frame.height // 2 * 2))


def _stamp(frame: VideoFrame, like: VideoFrame) -> VideoFrame:
    frame.pts = like.pts
    frame.time_base = like.time_base
    # A decoded key frame keeps its type, which the encoder would obey.
    frame.pict_type = PictureType.NONE
    return frame


def _even(length_px: float) -> int:
    return max(2, round(length_px / 2) * 2)


def to_plane(frame: VideoFrame, index: int) -> NDArray[np.uint8]:
    """Return a view of one plane without the padding of its lines; writing to it is allowed."""
    plane = frame.planes[index]
    lines = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return lines[: plane.height, : plane.width]


def _rgb_plane(frame: VideoFrame) -> NDArray[np.uint8]:
    plane = frame.planes[0]
    lines = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return lines[: frame.height, : frame.width * 3].reshape(frame.height, frame.width, 3)


def _i420_planes(image: Image, size: Size) -> tuple[Image, Image, Image]:
    """Return views of Y, U and V; the chroma planes lie one below the other."""
    luma = image[: size.height]
    chroma = image[size.height :].reshape(2, size.height // 2, size.width // 2)
    return luma, chroma[0], chroma[1]


def _pad(content: NDArray[np.uint8], placement: Placement, size: Size) -> NDArray[np.uint8]:
    """Put ``content`` at its place and repeat its edge around it."""
    right = size.width - placement.x - placement.width
    below = size.height - placement.y - placement.height
    if not (placement.x or placement.y or right or below):
        return np.ascontiguousarray(content)
    margins = [(placement.y, below), (placement.x, right)] + [(0, 0)] * (content.ndim - 2)
    return np.pad(content, margins, mode="edge")
