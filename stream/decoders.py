"""Decoders that look at a frame's size before they decode it.

A key frame of 16383x16383 is as small as a flat picture is, half a megabyte or less, and
costs a decoder 400 MB for each of its buffers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import aiortc.codecs
from aiortc.codecs.base import Decoder
from aiortc.mediastreams import VIDEO_TIME_BASE
from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from stream.frame_size import find_h264_size, find_vp8_size

MAX_DECODED_PIXELS = 4096 * 2304


@dataclass(frozen=True, slots=True)
class OversizedFrame:
    """Stands for a frame that was not decoded: whoever takes it sees its size, and no picture."""

    width: int
    height: int
    pts: int
    """90 kHz."""
    time_base: Fraction = VIDEO_TIME_BASE


class BoundedDecoder(Decoder):  # type: ignore[misc]  # aiortc is seen as untyped
    """Gives out an :class:`OversizedFrame` in place of one that is too large to be decoded."""

    def __init__(
        self, decoder: Decoder, find_size: Callable[[bytes], tuple[int, int] | None]
    ) -> None:
        """Stand before a decoder.

        Args:
            decoder: decodes what is not too large.
            find_size: reads width and height off an encoded frame; None: they are the last's.
        """
        self._decoder = decoder
        self._find_size = find_size

    def decode(self, encoded_frame: Any) -> list[Any]:
        """Decode one frame, in the decoder's thread."""
        size = self._find_size(encoded_frame.data)
        if size is not None and size[0] * size[1] > MAX_DECODED_PIXELS:
            return [OversizedFrame(*size, encoded_frame.timestamp)]
        frames: list[Any] = self._decoder.decode(encoded_frame)
        return frames


def make_decoder(codec: RTCRtpCodecParameters) -> Decoder:
    """Return a decoder as aiortc makes it; one of video is bounded."""
    decoder = aiortc.codecs.get_decoder(codec)
    finder = {"video/vp8": find_vp8_size, "video/h264": find_h264_size}.get(codec.mimeType.lower())
    return decoder if finder is None else BoundedDecoder(decoder, finder)
