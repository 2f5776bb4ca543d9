"""MP4 files of a tape's packets: H264 and Opus, as they are."""

from __future__ import annotations

import io
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import av
from aiortc.mediastreams import VIDEO_TIME_BASE
from av.stream import Stream

from pipeline.engines import Size
from stream import opus
from stream.tape_encoder import TapedPacket

FRAGMENT_S = 1.0
"""What a server that is killed takes with it, at most."""

_TAGS = "use_metadata_tags"
KEPT_SAFE = {
    # Fragments that can each be played, and an index for all in the end, which older editors
    # want: until it is there, nothing that was written is written over.
    "movflags": f"+hybrid_fragmented+empty_moov+default_base_moof+{_TAGS}",
    "frag_duration": str(round(FRAGMENT_S * 1_000_000)),
    # Nobody waits for sound that does not come.
    "max_interleave_delta": "100000",
}
IN_ONE_GO = {"movflags": f"+{_TAGS}"}


class Mp4:
    """One MP4 that is being written."""

    def __init__(
        self,
        file: io.RawIOBase | io.BytesIO,
        size: Size,
        tags: Mapping[str, str],
        options: Mapping[str, str],
        *,
        has_sound: bool,
    ) -> None:
        """Begin to write.

        Args:
            file: an empty one.
            size: of all pictures.
            tags: metadata.
            options: :data:`KEPT_SAFE` or :data:`IN_ONE_GO`.
            has_sound: there may be packets of sound.
        """
        self._output = av.open(file, "w", format="mp4", container_options=dict(options))
        self._output.metadata.update(tags)
        self._pictures = _Track(
            self._output.add_mux_stream("h264", width=size.width, height=size.height),
            VIDEO_TIME_BASE,
        )
        self._sound = None
        if has_sound:
            # An encoder that never encodes: it writes the header that MP4 wants (RFC 7845).
            stream = self._output.add_stream("libopus", 48_000, layout="stereo")
            self._sound = _Track(stream, opus.TIME_BASE)

    def write(self, packet: TapedPacket, zero_s: float) -> None:
        """Write a packet; one from before ``zero_s``, the file's beginning, is left out."""
        track = self._sound if packet.is_sound else self._pictures
        if track is not None and packet.at_s >= zero_s:
            self._output.mux(track.to_packet(packet, packet.at_s - zero_s))

    def close(self) -> None:
        """Write what is left."""
        self._output.close()


class _Track:
    """One stream of the file; its times grow."""

    def __init__(self, stream: Stream, time_base: Fraction) -> None:
        self._stream = stream
        self._time_base = time_base
        self._last = -1
        stream.time_base = time_base

    def to_packet(self, packet: TapedPacket, at_s: float) -> av.Packet[Stream]:
        ticks = max(self._last + 1, round(at_s / self._time_base))
        self._last = ticks
        muxed: av.Packet[Stream] = av.Packet(packet.data)
        muxed.stream = self._stream
        muxed.time_base = self._time_base
        muxed.pts = muxed.dts = ticks
        muxed.duration = round(packet.duration_s / self._time_base)
        muxed.is_keyframe = packet.is_key_frame
        return muxed


class GrowingFile(io.RawIOBase):
    """A new file that takes each write as a whole, and nothing more after one that failed.

    So a disk that is full, or a muxer that goes on all the same, cannot damage what is there.
    """

    def __init__(self, path: Path) -> None:
        """Create it.

        Raises:
            OSError: it cannot be created, or is there already.
        """
        super().__init__()
        self.size_bytes = 0
        self._file = path.open("xb", buffering=0)
        self._failure: OSError | None = None

    def writable(self) -> bool:
        """Tell that it can be written."""
        return True

    def seekable(self) -> bool:
        """Tell that it can be written at any place."""
        return True

    def tell(self) -> int:
        """Return the place."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def write(self, data: bytes) -> int:  # type: ignore[override]  # all that it is given
        """Write all of it.

        Raises:
            OSError: the disk is full or gone; from then on always.
        """
        if self._failure is not None:
            raise self._failure
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._failure = error
            raise
        self.size_bytes = max(self.size_bytes, self._file.tell())
        return len(data)

    def cut(self, size_bytes: int) -> None:
        """Close it at a size.

        Raises:
            OSError: the disk does not do even that.
        """
        try:
            self._file.truncate(size_bytes)
            self.size_bytes = size_bytes
        finally:
            self._failure = self._failure or OSError("the file was cut")
            self.close()

    def close(self) -> None:
        """Close it. Calling it again does nothing."""
        self._file.close()
        super().close()
