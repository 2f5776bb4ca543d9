"""What is in a film, whole or broken off: read by libav, as players do."""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

SOUND_HZ = 48_000


@dataclass
class Film:
    """An MP4, decoded."""

    times_s: list[float]
    """Of the pictures."""
    images: list[np.ndarray]
    """RGB."""
    sizes: set[tuple[int, int]]
    sound: np.ndarray
    """Mono, at 48 kHz, from the file's beginning; where there is none, silence."""
    codecs: list[str]
    tags: dict[str, str]

    def assert_grows(self) -> None:
        """Fail unless each picture is later than the one before."""
        assert all(before < after for before, after in pairwise(self.times_s)), self.times_s

    def middle(self, index: int) -> np.ndarray:
        """Return the mean colour of a picture's middle, as int."""
        height, width = self.images[index].shape[:2]
        patch = self.images[index][height // 3 : -(height // 3), width // 3 : -(width // 3)]
        return np.rint(patch.reshape(-1, 3).mean(0)).astype(int)


def read_film(source: Path | bytes) -> Film:
    """Decode all of it; a file that breaks off ends there."""

    def opened() -> av.container.InputContainer:
        return av.open(io.BytesIO(source) if isinstance(source, bytes) else source)

    with opened() as film:
        codecs = [stream.codec_context.name for stream in film.streams]
        tags = dict(film.metadata)
        frames = list(film.decode(video=0))
        has_sound = bool(film.streams.audio)
    sound = np.zeros(0, np.float32)
    if has_sound:
        with opened() as film:
            sound = _lay_out(list(film.decode(audio=0)))
    return Film(
        times_s=[frame.time for frame in frames],
        images=[frame.reformat(format="rgb24").to_ndarray() for frame in frames],
        sizes={(frame.width, frame.height) for frame in frames},
        sound=sound,
        codecs=codecs,
        tags=tags,
    )


def _lay_out(frames: list[av.AudioFrame]) -> np.ndarray:
    """Put each frame where its time says."""
    if not frames:
        return np.zeros(0, np.float32)
    length = round(frames[-1].time * SOUND_HZ) + frames[-1].samples
    sound = np.zeros(length, np.float32)
    for frame in frames:
        levels = frame.to_ndarray().astype(np.float32).mean(0)
        start = round(frame.time * SOUND_HZ)
        sound[start : start + len(levels)] = levels[: max(0, length - start)]
    return sound
