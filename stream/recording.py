"""Recording: a file that grows while a tape runs, and can be played wherever it breaks off."""

from __future__ import annotations

import errno
import logging
import shutil
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import av

from pipeline.engines import Size
from stream.mp4 import KEPT_SAFE, GrowingFile, Mp4
from stream.tape import MAX_WAITING_SOUND
from stream.tape_encoder import TapedPacket

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
"""At the room on the disk."""
_MAX_OF_A_NAME = 1000


@dataclass(frozen=True, slots=True)
class Label:
    """What a file says of itself."""

    tags: Mapping[str, str]
    from_s: float
    """``time.perf_counter()``: where it begins. Files of the same moment play side by side."""
    has_sound: bool


class Recording:
    """Writes a tape into a file, in the tape's thread, but for the properties."""

    keeps_size = True

    def __init__(
        self, path: Path, label: Label, on_end: Callable[[str], None], spare_bytes: int = 0
    ) -> None:
        """Create the file.

        Args:
            path: where nothing is yet; with a number added if there is something.
            label: what it says of itself.
            on_end: called once, in the tape's thread: with a sentence if it was ended by a
                failure, else with none.
            spare_bytes: what is left free on the disk; with less the recording ends.

        Raises:
            OSError: the file cannot be created, or the disk has less free.
        """
        self._spare_bytes = spare_bytes
        self._looked_s = label.from_s
        self._look_for_room(path.parent)
        self._file, self.path = _create(path)
        self.from_s = label.from_s
        self._label = label
        self._on_end = on_end
        self._mp4: Mp4 | None = None
        self._is_over = False
        # What the file has in whole fragments.
        self._whole_bytes = 0
        # Sound from before the first picture, which says what the file is like.
        self._early: deque[TapedPacket] = deque(maxlen=MAX_WAITING_SOUND)
        self.length_s = 0.0

    @property
    def size_bytes(self) -> int:
        """How much is on the disk."""
        return self._file.size_bytes

    # TapeReader

    def begin(self, size: Size) -> None:
        """Write the file's beginning."""
        assert self._mp4 is None, "a tape keeps its size for a recording"
        label = self._label
        self._mp4 = Mp4(self._file, size, label.tags, KEPT_SAFE, has_sound=label.has_sound)

    def take(self, packet: TapedPacket) -> None:
        """Write one packet; a disk that is full ends the recording."""
        if self._is_over:
            return
        if self._mp4 is None:
            self._early.append(packet)
            return
        try:
            while self._early:
                self._write(self._mp4, self._early.popleft())
            self._write(self._mp4, packet)
        except (OSError, av.FFmpegError) as error:
            self._fail(error)

    def end(self, why: str) -> None:
        """Write the file's end."""
        if self._is_over:
            return
        self._is_over = True
        try:
            if self._mp4 is not None:
                self._mp4.close()
            self._file.close()
            if self._mp4 is None:
                self.path.unlink()
        except (OSError, av.FFmpegError) as error:
            self._fail(error)
        else:
            self._on_end(why and f"the recording has ended after {self.length_s:.0f} s: {why}")

    def _write(self, mp4: Mp4, packet: TapedPacket) -> None:
        if packet.at_s - self._looked_s > LOOK_EVERY_S:
            self._looked_s = packet.at_s
            self._look_for_room(self.path.parent)
        mp4.write(packet, self.from_s)
        self._whole_bytes = self._file.tell()
        if not packet.is_sound:
            self.length_s = max(0.0, packet.at_s - self.from_s)

    def _look_for_room(self, folder: Path) -> None:
        if shutil.disk_usage(folder).free < self._spare_bytes:
            reason = f"less than {self._spare_bytes / 1e6:g} MB are free on its disk"
            raise OSError(errno.ENOSPC, reason)

    def _fail(self, error: Exception) -> None:
        self._is_over = True
        try:
            self._file.cut(self._whole_bytes)
        except OSError:
            # What is left over of a fragment is skipped by players.
            logger.exception("%s could not be cut to what is whole", self.path.name)
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        self._on_end(
            f"the recording has ended after {self.length_s:.0f} s: {self.path.name} could not be "
            f"written ({reason}); what it has until then can be played"
        )


def _create(path: Path) -> tuple[GrowingFile, Path]:
    for number in range(1, _MAX_OF_A_NAME):
        free = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        try:
            return GrowingFile(free), free
        except FileExistsError:
            continue
    raise FileExistsError(f"{path.name} and {_MAX_OF_A_NAME} more of its name are there already")
