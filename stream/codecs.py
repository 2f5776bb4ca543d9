"""What takes the place of aiortc's encoder factory, and what may be negotiated.

aiortc's encoders have their bit rates in module constants and open anew, with a key frame,
for every change of the estimate above a tenth. These follow a plan that changes rarely.
"""

from __future__ import annotations

import functools
import logging
import random
import time
from abc import abstractmethod
from collections.abc import Iterator

import av
from aiortc import RTCPeerConnection
from aiortc.codecs import get_encoder, is_rtx
from aiortc.codecs.base import Encoder
from aiortc.codecs.h264 import PACKET_MAX, H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from aiortc.mediastreams import VIDEO_CLOCK_RATE, VIDEO_TIME_BASE, convert_timebase
from aiortc.rtcrtpparameters import RTCRtcpFeedback, RTCRtpCodecParameters
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from stream.bitrate import DEFAULT_CAP_BPS, EncoderPlan, RateControl
from stream.encoders import open_nvenc, open_vp8, open_x264
from stream.reformatters import reformat

logger = logging.getLogger(__name__)

# profile_idc and constraints, most welcome first: constrained baseline, baseline, main,
# constrained high, high (RFC 6184, section 8.1).
H264_PROFILES = ("42e01f", "42001f", "4d001f", "640c1f", "64001f")
H264_MODES = ("1", "0")
_STOCK_H264 = {("42001f", "1"), ("42e01f", "1")}
_FIRST_FREE_PAYLOAD_TYPE = 103


class VideoEncoder(Encoder):  # type: ignore[misc]  # aiortc is seen as untyped
    """One session's encoder: follows the frames' size and what the network carries.

    ``encode`` runs in an executor, one call at a time; ``target_bitrate`` is set on the loop.
    """

    def __init__(self, cap_bps: int = DEFAULT_CAP_BPS) -> None:
        self.plan: EncoderPlan | None = None
        """What the open encoder was opened with."""
        self.refused_frames = 0
        """Frames that came with no later pts than the one before."""
        self._rate = RateControl(cap_bps)
        self._codec: VideoCodecContext | None = None
        self._last_timestamp = -1
        self._wants_key_frame = False

    @property
    def target_bitrate(self) -> int | None:
        """What the receiver says that the network carries, in bits per second."""
        return self._rate.estimate_bps

    @target_bitrate.setter
    def target_bitrate(self, bitrate_bps: int) -> None:
        self._rate.estimate_bps = bitrate_bps

    def encode(self, frame: av.VideoFrame, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        """Encode one frame.

        Args:
            frame: with a pts; ``yuv420p`` goes in as it is, all else is converted.
            force_keyframe: make it a key frame.

        Returns:
            RTP payloads and the RTP timestamp; no payloads for a frame that is no later than
            the one before, which encoders fail on and a receiver would show out of order.
        """
        timestamp = convert_timebase(frame.pts, frame.time_base, VIDEO_TIME_BASE)
        self._wants_key_frame |= force_keyframe
        if timestamp <= self._last_timestamp:
            if not self.refused_frames:
                logger.warning(
                    "a frame with pts %d came after one with %d and is not sent",
                    timestamp,
                    self._last_timestamp,
                )
            self.refused_frames += 1
            return [], timestamp
        self._last_timestamp = timestamp
        data = self.encode_at(self.choose_plan(frame), frame)
        self.account(len(data))
        return self._packetize(data), timestamp

    def choose_plan(self, frame: av.VideoFrame) -> EncoderPlan:
        """Return how large and at what bit rate the next frame should be for this receiver."""
        timestamp = convert_timebase(frame.pts, frame.time_base, VIDEO_TIME_BASE)
        pts_s = timestamp / VIDEO_CLOCK_RATE
        return self._rate.plan(frame.width, frame.height, pts_s, time.perf_counter())

    def expect_frame_rate(self, frame_rate_hz: int) -> None:
        """Begin with the frame rate that others have measured of the same frames."""
        self._rate.expect_frame_rate(frame_rate_hz)

    def account(self, size_bytes: int) -> None:
        """Count an encoded frame that goes to this receiver."""
        self._rate.output.add(size_bytes, time.perf_counter())

    def encode_at(
        self, plan: EncoderPlan, frame: av.VideoFrame, force_keyframe: bool = False
    ) -> bytes:
        """Encode one frame by a plan that somebody else has chosen; see :meth:`encode`."""
        # Of a frame shared with another encoder the type may change under way, so that the
        # wish stands until a key frame has come out.
        self._wants_key_frame |= force_keyframe
        if plan != self.plan:
            self._codec = None
        return self._encode(plan, to_i420(frame, plan))

    def pack(self, packet: av.Packet[VideoStream]) -> tuple[list[bytes], int]:
        """Cut an already encoded frame into RTP payloads."""
        timestamp = convert_timebase(packet.pts, packet.time_base, VIDEO_TIME_BASE)
        return self._packetize(bytes(packet)), timestamp

    def _encode(self, plan: EncoderPlan, frame: av.VideoFrame) -> bytes:
        if self._codec is None:
            self._codec = self._open(plan)
            self.plan = plan
        # A decoded frame keeps its type, which an encoder obeys.
        frame.pict_type = PictureType.I if self._wants_key_frame else PictureType.NONE
        packets = self._codec.encode(frame)
        if any(packet.is_keyframe for packet in packets):
            self._wants_key_frame = False
        return b"".join(bytes(packet) for packet in packets)

    @abstractmethod
    def _open(self, plan: EncoderPlan) -> VideoCodecContext:
        """Open an encoder."""

    @abstractmethod
    def _packetize(self, data: bytes) -> list[bytes]:
        """Cut one encoded frame into RTP payloads."""


class Vp8(VideoEncoder):
    """VP8 by libvpx (RFC 7741)."""

    def __init__(self, cap_bps: int = DEFAULT_CAP_BPS) -> None:
        super().__init__(cap_bps)
        self._picture_id = random.randrange(1 << 15)  # noqa: S311 - not a secret

    def _open(self, plan: EncoderPlan) -> VideoCodecContext:
        return open_vp8(plan)

    def _packetize(self, data: bytes) -> list[bytes]:
        payloads: list[bytes] = Vp8Encoder._packetize(data, self._picture_id)
        self._picture_id = (self._picture_id + 1) % (1 << 15)
        return payloads


class H264(VideoEncoder):
    """H264 by the graphics card or by libx264 (RFC 6184)."""

    def __init__(
        self,
        cap_bps: int = DEFAULT_CAP_BPS,
        encoder_name: str = "libx264",
        packetization_mode: str = "1",
    ) -> None:
        super().__init__(cap_bps)
        self.encoder_name = encoder_name
        self._is_single_nal = packetization_mode == "0"
        if self._is_single_nal:
            self.encoder_name = "libx264"  # which alone can keep a slice within a packet

    def _open(self, plan: EncoderPlan) -> VideoCodecContext:
        if self.encoder_name == "h264_nvenc":
            return open_nvenc(plan)
        return open_x264(plan, PACKET_MAX if self._is_single_nal else None)

    def _encode(self, plan: EncoderPlan, frame: av.VideoFrame) -> bytes:
        try:
            return super()._encode(plan, frame)
        except av.FFmpegError as error:
            if self.encoder_name == "libx264":
                raise
            # Consumer cards allow a few sessions at a time.
            logger.warning("%s failed (%s): libx264 takes over", self.encoder_name, error)
            self.encoder_name = "libx264"
            self._codec = None
            return super()._encode(plan, frame)

    def _packetize(self, data: bytes) -> list[bytes]:
        nals: Iterator[bytes] = H264Encoder._split_bitstream(data)
        if self._is_single_nal:
            return list(nals)
        payloads: list[bytes] = H264Encoder._packetize(nals)
        return payloads


def to_i420(frame: av.VideoFrame, plan: EncoderPlan) -> av.VideoFrame:
    """Return the frame in the encoder's size and format: itself, if it has them.

    Neither VP8 nor our H264 says anything about the range of its values, so that it has to
    be the limited one.
    """
    if (
        frame.format.name == "yuv420p"
        and frame.color_range != ColorRange.JPEG
        and (frame.width, frame.height) == (plan.width, plan.height)
    ):
        return frame
    return reformat(
        frame,
        plan.width,
        plan.height,
        "yuv420p",
        dst_color_range=ColorRange.MPEG,
        interpolation="AREA" if plan.width < frame.width else "BILINEAR",
        threads=1,
    )


def make_encoder(
    codec: RTCRtpCodecParameters, cap_bps: int = DEFAULT_CAP_BPS, h264: str = "libx264"
) -> Encoder:
    """Return a new encoder for a negotiated codec; audio gets aiortc's.

    Args:
        codec: what was negotiated.
        cap_bps: no picture gets more, whatever its size.
        h264: the name that :func:`probe_h264` found.
    """
    mime_type = codec.mimeType.lower()
    if mime_type == "video/vp8":
        return Vp8(cap_bps)
    if mime_type == "video/h264":
        mode = str(codec.parameters.get("packetization-mode", "0"))
        return H264(cap_bps, h264, mode)
    return get_encoder(codec)


def more_h264_codecs() -> list[RTCRtpCodecParameters]:
    """Return the H264 variants that aiortc decodes but does not negotiate."""
    codecs = []
    payload_type = _FIRST_FREE_PAYLOAD_TYPE
    for mode in H264_MODES:
        for profile in H264_PROFILES:
            if (profile, mode) in _STOCK_H264:
                continue
            codecs += [
                RTCRtpCodecParameters(
                    mimeType="video/H264",
                    clockRate=VIDEO_CLOCK_RATE,
                    payloadType=payload_type,
                    rtcpFeedback=[
                        RTCRtcpFeedback(type="nack"),
                        RTCRtcpFeedback(type="nack", parameter="pli"),
                        RTCRtcpFeedback(type="goog-remb"),
                    ],
                    parameters={
                        "level-asymmetry-allowed": "1",
                        "packetization-mode": mode,
                        "profile-level-id": profile,
                    },
                ),
                RTCRtpCodecParameters(
                    mimeType="video/rtx",
                    clockRate=VIDEO_CLOCK_RATE,
                    payloadType=payload_type + 1,
                    parameters={"apt": payload_type},
                ),
            ]
            payload_type += 2
    return codecs


def prefer_codec(pc: RTCPeerConnection) -> str | None:
    """Put the offer's favourite codec first in the answer, in its simplest variant.

    What is first is what we send, and what a browser sends. An offer lists what it prefers
    first (RFC 3264, section 5.1): browsers VP8, while those who ask for H264 list it first
    or alone. Called between ``setRemoteDescription`` and ``createAnswer``.

    Args:
        pc: has an offer.

    Returns:
        ``"VP8"`` or ``"H264"``; None without video.
    """
    favourite = None
    for transceiver in pc.getTransceivers():
        codecs = [codec for codec in transceiver._codecs if not is_rtx(codec)]
        if transceiver.kind == "video" and codecs:
            favourite = str(codecs[0].name)
            transceiver._codecs.sort(key=functools.partial(_rank, codec_name=favourite))
    return favourite


def keep_opus(pc: RTCPeerConnection) -> None:
    """Answer sound with Opus alone, which is sent on as it comes; like :func:`prefer_codec`."""
    for transceiver in pc.getTransceivers():
        if transceiver.kind == "audio":
            codecs = transceiver._codecs
            transceiver._codecs = [codec for codec in codecs if codec.name.lower() == "opus"]


def _rank(codec: RTCRtpCodecParameters, codec_name: str) -> tuple[bool, bool, bool, int]:
    """Sort key: real codecs before retransmission, the named one first, simplest first."""
    profile = codec.parameters.get("profile-level-id", "")
    return (
        is_rtx(codec),
        codec.name.upper() != codec_name.upper(),
        codec.parameters.get("packetization-mode", "1") == "0",
        H264_PROFILES.index(profile) if profile in H264_PROFILES else 0,
    )
