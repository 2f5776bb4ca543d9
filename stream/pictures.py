"""One-off pictures: JPEG and PNG ↔ ``av.VideoFrame``."""

from __future__ import annotations

import struct

import cv2
import numpy as np
from av import VideoFrame

from stream.errors import RequestRefused

MAX_PICTURE_BYTES = 256 * 1024
MAX_PICTURE_PIXELS = 4_000_000
JPEG_QUALITY = 85

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
# JPEG markers that begin a frame header (ITU-T T.81, table B.1) and those without a length.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset(range(0xD0, 0xD9)) | {0x01}


def decode_picture(data: bytes) -> VideoFrame:
    """Decode a JPEG or PNG.

    Raises:
        RequestRefused: 415 it is neither, 413 too many pixels, 422 it is damaged.
    """
    try:
        width, height = _read_size(data)
    except (struct.error, IndexError):
        raise RequestRefused(422, "the picture is cut off before its size") from None
    # Asked before decoding: a few kilobytes of PNG can claim gigabytes of pixels.
    if width * height > MAX_PICTURE_PIXELS:
        raise RequestRefused(
            413, f"a picture may have {MAX_PICTURE_PIXELS} pixels (got {width}x{height})"
        )
    if width < 2 or height < 2:
        raise RequestRefused(422, f"a picture needs 2x2 pixels (got {width}x{height})")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise RequestRefused(422, "the picture is damaged")
    return VideoFrame.from_numpy_buffer(np.ascontiguousarray(image, np.uint8), "bgr24")


def encode_jpeg(frame: VideoFrame) -> bytes:
    """Return a frame of any pixel format as a JPEG."""
    image = frame.reformat(format="bgr24", threads=1).to_ndarray()
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return bytes(data)


def _read_size(data: bytes) -> tuple[int, int]:
    if data.startswith(_PNG):
        width, height = struct.unpack_from(">II", data, 16)
        return width, height
    if data.startswith(_JPEG):
        return _read_jpeg_size(data)
    raise RequestRefused(415, "the body must be a JPEG or a PNG")


def _read_jpeg_size(data: bytes) -> tuple[int, int]:
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        if marker == 0xFF:
            at += 1
        elif marker in _JPEG_BARE:
            at += 2
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    raise RequestRefused(422, "the JPEG is damaged")
