import random

import av
import pytest
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from aiortc.mediastreams import VIDEO_TIME_BASE

from stream.codecs import H264, VideoEncoder, Vp8
from stream.keyframes import KeyStart, find_key_start


def encode(encoder: VideoEncoder, index: int, is_key: bool) -> list[bytes]:
    frame = av.VideoFrame(640, 480, "yuv420p")
    for plane in frame.planes:
        plane.update(random.Random(index).randbytes(plane.buffer_size))
    frame.pts = index * 3000
    frame.time_base = VIDEO_TIME_BASE
    return encoder.encode(frame, is_key)[0]


@pytest.mark.parametrize(("name", "encoder"), [("VP8", Vp8), ("H264", H264)])
def test_the_first_packet_of_a_key_frame_is_found_and_no_other(
    name: str, encoder: type[VideoEncoder]
) -> None:
    """Of a real encoder's packets, exactly the first of each key frame opens one."""
    subject = encoder()
    for index in range(6):
        is_key = index in (0, 3)
        payloads = encode(subject, index, is_key)
        found = [find_key_start(name, payload) for payload in payloads]
        assert (found[0] is KeyStart.YES) == is_key
        assert KeyStart.YES not in found[1:]


def test_vp8_descriptors_of_every_length_are_skipped() -> None:
    """The picture number, layer and key fields of the descriptor hide no key frame."""
    key, delta = b"\x10", b"\x11"
    for descriptor in (
        b"\x10",
        b"\x90\x00",
        b"\x90\x80\x05",
        b"\x90\x80\x85\x01",
        b"\x90\xe0\x85\x01\x02\x03",
        b"\x90\xf0\x85\x01\x02\x03",
    ):
        assert find_key_start("VP8", descriptor + key) is KeyStart.YES
        assert find_key_start("VP8", descriptor + delta) is KeyStart.NO
    assert find_key_start("VP8", b"\x00" + key) is KeyStart.NO, "the middle of a partition"
    assert find_key_start("VP8", b"\x11" + key) is KeyStart.NO, "another partition"


@pytest.mark.parametrize("payload", [b"", b"\x90", b"\x90\x80", b"\x10", b"\x90\xf0\x85"])
def test_a_truncated_vp8_payload_opens_nothing(payload: bytes) -> None:
    """What ends before its frame header is no key frame, and no error."""
    assert find_key_start("VP8", payload) is KeyStart.NO


def test_h264_units_are_found_in_every_packaging() -> None:
    """Single units, aggregates and first fragments are read; later fragments open nothing."""
    sps, pps = b"\x67\x42\xe0\x1f", b"\x68\xce\x3c\x80"
    idr, second_slice, delta = b"\x65\x88\x84", b"\x65\x40\x84", b"\x41\x9a\x01"
    aggregate = b"\x78" + b"".join(len(nal).to_bytes(2, "big") + nal for nal in (sps, pps))
    assert find_key_start("H264", sps) is KeyStart.YES
    assert find_key_start("H264", aggregate) is KeyStart.YES
    assert find_key_start("H264", idr) is KeyStart.IF_FIRST
    assert find_key_start("H264", b"\x7c\x85" + idr[1:]) is KeyStart.IF_FIRST
    assert find_key_start("H264", b"\x7c\x05" + idr[1:]) is KeyStart.NO
    for payload in (pps, second_slice, delta, b"", b"\x78", b"\x78\x00\x00", b"\x78\x00"):
        assert find_key_start("H264", payload) is KeyStart.NO


def test_the_encoders_of_aiortc_are_understood() -> None:
    """Packets of a stock peer are read as well as our own."""
    assert find_key_start("VP8", Vp8Encoder._packetize(b"\x10\x02\x00", 7)[0]) is KeyStart.YES
    units = H264Encoder._packetize([b"\x67\x42\xe0\x1f", b"\x68\xce", b"\x65\x88"])
    assert find_key_start("H264", units[0]) is KeyStart.YES


def test_an_unknown_codec_goes_on_anywhere() -> None:
    """Of a codec that we cannot read, every frame may follow a gap."""
    assert find_key_start("VP9", b"\x00") is KeyStart.IF_FIRST
