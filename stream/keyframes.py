"""Where a key frame begins, read from an RTP payload without decoding it."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

_H264_IDR = 5
_H264_SPS = 7
_H264_STAP_A = 24
_H264_FU_A = 28


class KeyStart(IntEnum):
    """Whether a packet is the first of a key frame."""

    NO = 0
    IF_FIRST = 1
    """It is, provided that the packet before it belongs to another frame."""
    YES = 2


def find_key_start(codec_name: str, payload: bytes) -> KeyStart:
    """Tell whether a packet begins a key frame.

    Args:
        codec_name: ``"VP8"`` or ``"H264"``; of any other codec every packet counts as one,
            so that a gap is followed by whatever comes next.
        payload: the RTP payload with the codec's payload header.
    """
    if codec_name == "VP8":
        return _find_vp8(payload)
    if codec_name == "H264":
        return _find_h264(payload)
    return KeyStart.IF_FIRST


def _find_vp8(payload: bytes) -> KeyStart:
    """RFC 7741, section 4.2 (descriptor: X, S, PID; I, L, T, K) and 4.3 (header: P)."""
    if not payload or payload[0] & 0x17 != 0x10:
        return KeyStart.NO
    position = 1
    if payload[0] & 0x80:
        if len(payload) < 3:
            return KeyStart.NO
        extensions = payload[1]
        position = 2
        if extensions & 0x80:
            position += 2 if payload[2] & 0x80 else 1
        position += bool(extensions & 0x40) + bool(extensions & 0x30)
    if len(payload) <= position or payload[position] & 1:
        return KeyStart.NO
    return KeyStart.YES


def _find_h264(payload: bytes) -> KeyStart:
    """RFC 6184: a parameter set, or the first slice of an IDR picture.

    A parameter set opens its picture for sure. An IDR slice may follow parameter sets
    that were lost, and without them it decodes into another size.
    """
    start = KeyStart.NO
    for nal in _h264_nals(payload):
        nal_type = nal[0] & 0x1F
        if nal_type == _H264_SPS:
            return KeyStart.YES
        # first_mb_in_slice = 0 is coded as a single 1 bit (H.264, section 7.3.3).
        if nal_type == _H264_IDR and len(nal) > 1 and nal[1] & 0x80:
            start = KeyStart.IF_FIRST
    return start


def _h264_nals(payload: bytes) -> Iterator[bytes]:
    """Yield the beginning of every NAL unit that begins in the payload."""
    if len(payload) < 2:
        return
    nal_type = payload[0] & 0x1F
    if nal_type == _H264_FU_A:
        if payload[1] & 0x80:
            yield bytes([payload[1] & 0x1F]) + payload[2:3]
    elif nal_type == _H264_STAP_A:
        position = 1
        while position + 2 < len(payload):
            size = int.from_bytes(payload[position : position + 2], "big")
            if size:
                yield payload[position + 2 : position + 4][:size]
            position += 2 + size
    else:
        yield payload[:2]
