"""FFmpeg's video encoders, opened so that every frame comes out at once.

Fast enough to leave the processor to the model: aiortc's own run VP8 with noise reduction
and x264 at its ``medium`` preset.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from fractions import Fraction

import av
from aiortc.mediastreams import VIDEO_TIME_BASE
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from stream.bitrate import EncoderPlan

# A key frame comes when someone asks for it, not by the calendar.
KEY_FRAME_DISTANCE = 3000
SMALL_PIXELS = 640 * 480
LARGE_PIXELS = 1280 * 720


@dataclass(frozen=True, slots=True)
class H264Choice:
    """Which encoder makes H264 on this machine."""

    name: str
    """FFmpeg's name: ``"h264_nvenc"`` or ``"libx264"``."""
    reason: str


@functools.cache
def probe_h264() -> H264Choice:
    """Try the hardware encoder on one frame; the result stays for the process."""
    frame = av.VideoFrame(640, 480, "yuv420p")
    frame.pts = 0
    frame.time_base = VIDEO_TIME_BASE
    plan = EncoderPlan(640, 480, 1_000_000, 30)
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)  # FFmpeg tells the reason in its log only
    try:
        with av.logging.Capture() as messages:
            encoded = open_nvenc(plan).encode(frame)
    except (av.FFmpegError, ValueError) as error:
        why = messages[-1][2].strip() if messages else str(error)
        return H264Choice("libx264", f"h264_nvenc does not open here ({why})")
    finally:
        av.logging.set_level(level)
    if not encoded:
        return H264Choice("libx264", "h264_nvenc holds the first frame back")
    return H264Choice("h264_nvenc", "it encoded a frame")


def thread_count(pixels: int) -> int:
    """Return the number of threads that pay off for a picture of this size.

    One where the model needs the processors: libvpx's threads wait for each other by
    spinning, so that on two busy cores two of them took 4.5 s for a frame of 1280x720.
    """
    cpus = os.cpu_count() or 1
    if pixels <= SMALL_PIXELS or cpus < 4:
        return 1
    return 2 if pixels <= LARGE_PIXELS or cpus < 8 else 4


def _open(name: str, plan: EncoderPlan, options: dict[str, str]) -> VideoCodecContext:
    codec = av.CodecContext.create(name, "w")
    assert isinstance(codec, VideoCodecContext)
    codec.width = plan.width
    codec.height = plan.height
    codec.bit_rate = plan.bitrate_bps
    codec.pix_fmt = "yuv420p"
    codec.framerate = Fraction(plan.frame_rate_hz)
    # Frames come when the model is done: their own clock is the only true one.
    codec.time_base = VIDEO_TIME_BASE
    codec.gop_size = KEY_FRAME_DISTANCE
    codec.options = options
    return codec


def open_vp8(plan: EncoderPlan) -> VideoCodecContext:
    """Open libvpx for real time: constant bit rate, no lag, no noise reduction.

    Not error resilient: a lost packet is sent again or followed by a key frame.
    """
    pixels = plan.width * plan.height
    rate = str(plan.bitrate_bps)
    codec = _open(
        "libvpx",
        plan,
        {
            # FFmpeg: rc_buf_sz = bufsize * 1000 / bit_rate, in milliseconds.
            "bufsize": rate,
            "cpu-used": "-8" if pixels <= SMALL_PIXELS else "-12",
            "deadline": "realtime",
            "lag-in-frames": "0",
            # A key frame of more than six frames' bits would stand in its own way.
            "max-intra-rate": "600",
            # minrate = maxrate = bit_rate: constant bit rate.
            "maxrate": rate,
            "minrate": rate,
            "noise-sensitivity": "0",
            "overshoot-pct": "15",
            "static-thresh": "1",
            "undershoot-pct": "100",
        },
    )
    codec.qmin = 2
    codec.qmax = 56
    codec.thread_count = thread_count(pixels)
    return codec


def open_x264(plan: EncoderPlan, max_slice_bytes: int | None = None) -> VideoCodecContext:
    """Open libx264 for real time: baseline, one frame in, one frame out.

    Args:
        plan: size and rates.
        max_slice_bytes: cut pictures into slices of one packet each; None: do not.
    """
    pixels = plan.width * plan.height
    options = {
        # Half a second of buffer: a frame may not take longer than that on the line.
        "bufsize": str(plan.bitrate_bps // 2),
        "forced-idr": "1",
        "level": "31" if pixels <= LARGE_PIXELS else "40",
        "maxrate": str(plan.bitrate_bps),
        "preset": "superfast" if pixels <= SMALL_PIXELS else "ultrafast",
        "sc_threshold": "0",
        "tune": "zerolatency",
    }
    if max_slice_bytes is not None:
        options["slice-max-size"] = str(max_slice_bytes)
    codec = _open("libx264", plan, options)
    codec.max_b_frames = 0
    codec.profile = "Baseline"
    codec.thread_count = thread_count(pixels)
    return codec


def open_x264_for_files(plan: EncoderPlan) -> VideoCodecContext:
    """Open libx264 for what is kept: even quality, at most the plan's bit rate.

    One frame in, one frame out, so that what was seen is in the file a moment later. Each key
    frame has its parameters with it and can begin a file.
    """
    pixels = plan.width * plan.height
    codec = _open(
        "libx264",
        plan,
        {
            "bufsize": str(plan.bitrate_bps),
            "crf": "21",
            "forced-idr": "1",
            "maxrate": str(plan.bitrate_bps),
            "preset": "superfast" if pixels <= SMALL_PIXELS else "ultrafast",
            "sc_threshold": "0",
            "tune": "zerolatency",
        },
    )
    codec.max_b_frames = 0
    codec.thread_count = thread_count(pixels)
    # What stream.frames makes; without a name, players take HD for BT.709.
    codec.color_range = ColorRange.MPEG
    codec.colorspace = Colorspace.ITU601
    codec.color_primaries = ColorPrimaries.BT709
    codec.color_trc = ColorTrc.BT709
    return codec


def open_nvenc(plan: EncoderPlan) -> VideoCodecContext:
    """Open the graphics card's encoder for real time. Data-centre cards have none."""
    codec = _open(
        "h264_nvenc",
        plan,
        {
            "delay": "0",
            "forced-idr": "1",
            "preset": "p1",
            "profile": "baseline",
            "rc": "cbr",
            "rc-lookahead": "0",
            "tune": "ull",
            "zerolatency": "1",
        },
    )
    codec.max_b_frames = 0
    return codec
