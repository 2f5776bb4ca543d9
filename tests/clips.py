"""Small videos and pictures on disk, and what is in them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

CLOCK_HZ = 90_000
SOUND_HZ = 48_000


def paint(number: int, size: tuple[int, int]) -> np.ndarray:
    """A frame that tells its number by its colour and its top left by a white square."""
    image = np.full((size[1], size[0], 3), (40, (60 + 4 * number) % 256, 180), np.uint8)
    image[: size[1] // 4, : size[0] // 4] = 255
    return image


def write_clip(
    path: Path,
    codec: str = "libx264",
    sound: str | None = "aac",
    frames: int = 24,
    size: tuple[int, int] = (96, 64),
    rotation: int = 0,
) -> list[int]:
    """Write a video of uneven frame rate; return the pts of its frames in 1/90000 s."""
    pts = [3000 * (number + number // 5) for number in range(frames)]
    with av.open(path, "w") as output:
        video = output.add_stream(codec, 30)
        video.width, video.height = size
        video.codec_context.time_base = Fraction(1, CLOCK_HZ)
        if rotation:
            video.set_display_rotation(rotation)
        audio = output.add_stream(sound, SOUND_HZ) if sound else None
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(paint(number, size), "rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.pts, frame.time_base = pts[number], Fraction(1, CLOCK_HZ)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        if audio is not None:
            write_tone(output, audio, pts[-1] / CLOCK_HZ)
    return pts


def write_tone(
    output: av.container.OutputContainer, audio: av.AudioStream, length_s: float
) -> None:
    """Write a tone of 440 Hz."""
    times_s = np.arange(round(length_s * SOUND_HZ)) / SOUND_HZ
    levels = (8000 * np.sin(2 * np.pi * 440 * times_s)).astype(np.int16)
    for start in range(0, len(levels), 960):
        samples = np.repeat(levels[start : start + 960], 2)[None]
        frame = av.AudioFrame.from_ndarray(samples, "s16", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_HZ, start, Fraction(1, SOUND_HZ)
        output.mux(audio.encode(frame))
    output.mux(audio.encode(None))


@dataclass
class Clip:
    """What a video file holds."""

    images: list[np.ndarray]
    times_s: list[float]
    codecs: list[str]
    duration_s: float
    tone_hz: float | None
    """The loudest frequency of the sound."""


def read_clip(path: Path) -> Clip:
    with av.open(path) as source:
        codecs = [stream.codec_context.codec.canonical_name for stream in source.streams]
        frames = list(source.decode(video=0))
        duration_s = source.duration / av.time_base
    return Clip(
        images=[frame.reformat(format="rgb24").to_ndarray() for frame in frames],
        times_s=[frame.time for frame in frames],
        codecs=codecs,
        duration_s=duration_s,
        tone_hz=find_tone(path) if len(codecs) > 1 else None,
    )


def find_tone(path: Path) -> float:
    with av.open(path) as source:
        resampler = av.AudioResampler("flt", "mono", SOUND_HZ)
        frames = [part for frame in source.decode(audio=0) for part in resampler.resample(frame)]
    levels = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    spectrum = np.abs(np.fft.rfft(levels))
    return float(spectrum.argmax() * SOUND_HZ / len(levels))
