"""One-off pictures: JPEG and PNG ↔ ``av.VideoFrame``."""

from __future__ import annotations

import struct
import zlib

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
# A progressive one has about ten; each goes over all of the picture again.
MAX_JPEG_SCANS = 64
_JPEG_SCAN = b"\xff\xda"
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
    if data.startswith(_PNG):
        data = _strip_png(data, width, height)
    elif data.count(_JPEG_SCAN) > MAX_JPEG_SCANS:
        raise RequestRefused(422, f"a JPEG may have {MAX_JPEG_SCANS} scans")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise RequestRefused(422, "the picture is damaged")
    return VideoFrame.from_numpy_buffer(np.ascontiguousarray(image, np.uint8), "bgr24")


def encode_jpeg(frame: VideoFrame, comment: str = "") -> bytes:
    """Return a frame of any pixel format as a JPEG, with a comment of at most 65 kB in it."""
    image = frame.reformat(format="bgr24", threads=1).to_ndarray()
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    jpeg = bytes(data)
    if not comment:
        return jpeg
    text = comment.encode()
    # ITU-T T.81, section B.2.4.5; it may come first after the start of the image.
    return jpeg[:2] + b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text + jpeg[2:]


def _strip_png(data: bytes, width: int, height: int) -> bytes:
    """Return a PNG with nothing in it but the picture, once that is as large as it says.

    Libpng inflates whatever lies in the file, though the picture has few pixels: 200 MB out
    of 200 kB took three seconds.

    Raises:
        RequestRefused: 422 it is cut off, or holds more than its pixels.
    """
    kept, stream, position = [_PNG], bytearray(), len(_PNG)
    while position + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, position)
        chunk = data[position : position + 12 + size]
        name = chunk[4:8]
        if not name[:1].islower():  # ancillary ones are not needed to draw it
            kept.append(chunk)
        if name == b"IDAT":
            stream += chunk[8 : 8 + size]
        position += 12 + size
    # At most 4 channels of 16 bits, a byte before each line, and interlaced twice the lines.
    most_bytes = height * (width * 8 + 2) + 64 * (width + height)
    inflater = zlib.decompressobj()
    try:
        inflated = len(inflater.decompress(bytes(stream), most_bytes + 1))
    except zlib.error:
        raise RequestRefused(422, "the picture is damaged") from None
    if inflated > most_bytes:
        raise RequestRefused(422, f"the picture holds more than its {width}x{height} pixels")
    return b"".join(kept)


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
