"""The size of an encoded frame, read off its head without decoding it."""

from __future__ import annotations

from collections.abc import Iterator

_VP8_START_CODE = b"\x9d\x01\x2a"
_NAL_START_CODE = b"\x00\x00\x01"
_SPS = 7
# Profiles whose parameter sets say more of the format of samples (H.264, section 7.3.2.1.1).
_HIGH_PROFILES = frozenset((100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135))
_SPS_HEAD_BYTES = 1024
"""An honest parameter set has some 30; no more of it is read."""


def find_vp8_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a key frame (RFC 6386, section 9.1); None: it is none."""
    if len(data) < 10 or data[0] & 1 or data[3:6] != _VP8_START_CODE:
        return None
    width = int.from_bytes(data[6:8], "little") & 0x3FFF
    height = int.from_bytes(data[8:10], "little") & 0x3FFF
    return width, height


def find_h264_size(data: bytes) -> tuple[int, int] | None:
    """Return the largest width and height that a frame's parameter sets name, in macroblocks.

    Args:
        data: NAL units, each after a start code (H.264, annex B).

    Returns:
        In pixels, before anything is cropped; None: there is no parameter set to be read.
    """
    sizes = [size for sps in _parameter_sets(data) if (size := _read_sps(sps)) is not None]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _parameter_sets(data: bytes) -> Iterator[bytes]:
    start = data.find(_NAL_START_CODE)
    while start >= 0:
        start += len(_NAL_START_CODE)
        end = data.find(_NAL_START_CODE, start)
        if start < len(data) and data[start] & 0x1F == _SPS:
            yield data[start + 1 : len(data) if end < 0 else end][:_SPS_HEAD_BYTES]
        start = end


class _Bits:
    """Reads bits, and the numbers of H.264, section 9.1; raises IndexError at the end."""

    def __init__(self, data: bytes) -> None:
        # Without the bytes that keep start codes from occurring (section 7.4.1).
        clean = data.replace(b"\x00\x00\x03", b"\x00\x00")
        self._bits = "".join(f"{byte:08b}" for byte in clean)
        self._at = 0

    def u(self, count: int) -> int:
        """Read an unsigned number of so many bits."""
        if self._at + count > len(self._bits):
            raise IndexError
        self._at += count
        return int(self._bits[self._at - count : self._at] or "0", 2)

    def ue(self) -> int:
        """Read an unsigned number, Exp-Golomb-coded."""
        zeros = 0
        while self.u(1) == 0:
            zeros += 1
        return (1 << zeros) - 1 + self.u(zeros)

    def se(self) -> int:
        """Read a signed number, Exp-Golomb-coded."""
        code = self.ue()
        return (code + 1) // 2 if code % 2 else -(code // 2)


def _read_sps(sps: bytes) -> tuple[int, int] | None:
    """Read a sequence parameter set (H.264, section 7.3.2.1.1) as far as its size."""
    bits = _Bits(sps)
    try:
        profile = bits.u(8)
        bits.u(16)  # constraints and level
        bits.ue()  # its number
        if profile in _HIGH_PROFILES:
            _skip_samples(bits)
        bits.ue()  # log2_max_frame_num_minus4
        _skip_order(bits)
        bits.ue()  # max_num_ref_frames
        bits.u(1)  # gaps_in_frame_num_value_allowed_flag
        width, height = bits.ue() + 1, bits.ue() + 1
        is_progressive = bits.u(1)
    except IndexError:
        return None
    return width * 16, height * 16 * (2 - is_progressive)


def _skip_samples(bits: _Bits) -> None:
    chroma_format = bits.ue()
    if chroma_format == 3:
        bits.u(1)
    bits.ue()
    bits.ue()
    bits.u(1)
    if not bits.u(1):
        return
    for index in range(12 if chroma_format == 3 else 8):
        if bits.u(1):
            _skip_scaling_list(bits, 16 if index < 6 else 64)


def _skip_scaling_list(bits: _Bits, count: int) -> None:
    last = after = 8
    for _ in range(count):
        if after:
            after = (last + bits.se()) % 256
        last = after or last


def _skip_order(bits: _Bits) -> None:
    kind = bits.ue()  # pic_order_cnt_type
    if kind == 0:
        bits.ue()
    elif kind == 1:
        bits.u(1)
        bits.se()
        bits.se()
        for _ in range(min(bits.ue(), 255)):
            bits.se()
