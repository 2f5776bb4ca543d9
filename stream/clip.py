"""Clip: the last half minute of a tape, kept in memory until somebody wants it."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.engines import Size
from stream.mp4 import IN_ONE_GO, Mp4
from stream.tape_encoder import TapedPacket

CLIP_S = 30.0
MAX_CLIP_BYTES = 32 * 1024 * 1024
"""Of each session; does for 30 s at the highest bit rate of a tape."""
# More than 30 s of 20 ms each, since a clip begins at a key frame before that.
_MAX_SOUNDS = 2000
# Sound that goes on when no picture comes any more.
_OVERHANG_S = 0.5


@dataclass(frozen=True, slots=True)
class Take:
    """What a clip is made of."""

    size: Size
    pictures: tuple[TapedPacket, ...]
    """Begin with a key frame."""
    sounds: tuple[TapedPacket, ...]


class ClipRing:
    """Keeps a tape's last 30 s, and what leads up to them from a key frame.

    It holds :data:`MAX_CLIP_BYTES` at most; of more, the oldest go. Everything is called in the
    tape's thread.
    """

    keeps_size = False
    from_s = 0.0

    def __init__(self) -> None:
        self._size: Size | None = None
        self._pictures: deque[TapedPacket] = deque()
        self._sounds: deque[TapedPacket] = deque()
        # When each key frame among the pictures is.
        self._keys_s: deque[float] = deque()
        self.size_bytes = 0
        """How much is kept."""

    def take_out(self) -> Take | None:
        """Return what is kept; None: nothing yet."""
        if self._size is None or not self._pictures:
            return None
        first_s, last_s = self._pictures[0].at_s, self._pictures[-1].at_s + _OVERHANG_S
        sounds = tuple(sound for sound in self._sounds if first_s <= sound.at_s <= last_s)
        return Take(self._size, tuple(self._pictures), sounds)

    # TapeReader

    def begin(self, size: Size) -> None:
        """Begin anew, with pictures of another size."""
        self._size = size
        self._keys_s.clear()
        while self._pictures:
            self._drop(self._pictures)

    def take(self, packet: TapedPacket) -> None:
        """Keep a packet, and let the oldest go."""
        if packet.is_sound:
            if len(self._sounds) == _MAX_SOUNDS:
                self._drop(self._sounds)
            self._keep(self._sounds, packet)
            return
        if not self._pictures and not packet.is_key_frame:
            return  # nothing could be made of it
        if packet.is_key_frame:
            self._keys_s.append(packet.at_s)
        self._keep(self._pictures, packet)
        while len(self._keys_s) > 1 and self._keys_s[1] <= packet.at_s - CLIP_S:
            self._drop_oldest()
        while self._pictures and self.size_bytes > MAX_CLIP_BYTES:
            self._drop_oldest()

    def end(self, why: str) -> None:
        """Keep what there is."""

    def _drop_oldest(self) -> None:
        """Let the pictures up to the second key frame go, and the sound before it."""
        self._keys_s.popleft()
        until_s = self._keys_s[0] if self._keys_s else float("inf")
        while self._pictures and self._pictures[0].at_s < until_s:
            self._drop(self._pictures)
        while self._sounds and self._sounds[0].at_s < until_s:
            self._drop(self._sounds)

    def _keep(self, packets: deque[TapedPacket], packet: TapedPacket) -> None:
        packets.append(packet)
        self.size_bytes += len(packet.data)

    def _drop(self, packets: deque[TapedPacket]) -> None:
        self.size_bytes -= len(packets.popleft().data)


def write_clip(take: Take, tags: Mapping[str, str]) -> bytes:
    """Return an MP4."""
    file = io.BytesIO()
    mp4 = Mp4(file, take.size, tags, IN_ONE_GO, has_sound=bool(take.sounds))
    zero_s = take.pictures[0].at_s
    for packet in sorted((*take.pictures, *take.sounds), key=lambda packet: packet.at_s):
        mp4.write(packet, zero_s)
    mp4.close()
    return file.getvalue()
