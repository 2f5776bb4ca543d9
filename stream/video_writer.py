"""The video file that ``run.py translate`` writes: formats, moving picture and sound."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import av
from av import AudioFrame, AudioStream, Packet, VideoFrame, VideoStream
from av.codec.context import Flags
from av.container import InputContainer, OutputContainer
from av.filter import Graph
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

logger = logging.getLogger(__name__)

FALLBACK_RATE_HZ = Fraction(30)
"""For a container that tells no frame rate; timing does not depend on it."""
OPUS_RATE_HZ = 48_000


@dataclass(frozen=True, slots=True)
class Target:
    """How a video is written."""

    container: str
    codec: str
    codec_options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)
    sound_codec: str | None = None
    """For sound that cannot be copied; None for a format without sound."""
    copied_sound: frozenset[str] = frozenset()
    """Codecs that players expect in this container."""
    time_base: Fraction | None = None
    """None for the source's own."""


H264 = {"crf": "20", "preset": "fast"}
VP9 = {"crf": "30", "deadline": "good", "cpu-used": "4", "row-mt": "1"}
QUICK_START = {"movflags": "+faststart"}
LOOP = {"loop": "0"}
MP4_SOUND = frozenset({"aac", "mp3", "opus", "ac3", "eac3", "alac", "flac"})
MOV_SOUND = frozenset({"aac", "mp3", "alac", "ac3", "pcm_s16le", "pcm_s24le"})
MKV_SOUND = MP4_SOUND | MOV_SOUND | {"vorbis"}
WEBM_SOUND = frozenset({"opus", "vorbis"})

TARGETS = {
    ".mp4": Target("mp4", "libx264", H264, QUICK_START, "aac", MP4_SOUND),
    ".mov": Target("mov", "libx264", H264, QUICK_START, "aac", MOV_SOUND),
    ".mkv": Target("matroska", "libx264", H264, {}, "aac", MKV_SOUND),
    ".webm": Target("webm", "libvpx-vp9", VP9, {}, "libopus", WEBM_SOUND),
    ".webp": Target("webp", "libwebp_anim", {"quality": "80"}, LOOP, time_base=Fraction(1, 1000)),
    ".gif": Target("gif", "gif", {}, LOOP, time_base=Fraction(1, 100)),
}
"""By DST's ending."""


def to_tick_s(frame: VideoFrame | AudioFrame) -> Fraction:
    """Return the seconds that one of a decoded frame's pts is."""
    assert frame.time_base is not None, "decoders name it"
    return frame.time_base


class MovingPicture:
    """The frames of the file that is written."""

    def __init__(
        self, output: OutputContainer, target: Target, first: VideoFrame, source: VideoStream
    ) -> None:
        rate = source.average_rate or source.guessed_rate or FALLBACK_RATE_HZ
        # yuv420p has a colour sample for every other pixel, so both sides are even.
        self._width, self._height = max(2, first.width // 2 * 2), max(2, first.height // 2 * 2)
        self._output = output
        stream = output.add_stream(target.codec, rate, dict(target.codec_options))
        assert isinstance(stream, VideoStream)
        self._stream = stream
        self._time_base = target.time_base or source.time_base or 1 / rate
        context = stream.codec_context
        context.width, context.height = self._width, self._height
        context.time_base = self._time_base
        context.flags |= Flags.frame_duration
        if source.sample_aspect_ratio:
            context.sample_aspect_ratio = source.sample_aspect_ratio
        self._palette: PaletteGraph | None = None
        if target.codec == "gif":
            context.pix_fmt = "pal8"
            self._palette = PaletteGraph(self._width, self._height, self._time_base)
        else:
            # What stream.frames writes; without a name, players take HD for BT.709.
            context.color_range = ColorRange.MPEG
            context.colorspace = Colorspace.ITU601
            context.color_primaries = ColorPrimaries.BT709
            context.color_trc = ColorTrc.BT709
        self._last_pts = -1
        self._has_resized = False

    def write(self, frame: VideoFrame, duration_s: Fraction, shift_s: Fraction) -> None:
        """Write one ``yuv420p`` frame, ``shift_s`` earlier than it says.

        A frame of another size than the first is resized to it, as a file has one size.
        """
        at_s = Fraction(0) if frame.pts is None else frame.pts * to_tick_s(frame) - shift_s
        if (frame.width, frame.height) != (self._width, self._height):
            if not self._has_resized:
                logger.warning("SRC changes its size on the way; DST keeps the first one")
            self._has_resized = True
            frame = frame.reformat(self._width, self._height, "yuv420p")
        # A frame without a time, or no later than the one before, follows that at once.
        frame.time_base = self._time_base
        frame.pts = max(self._last_pts + 1, round(at_s / self._time_base))
        frame.duration = round(duration_s / self._time_base)
        self._last_pts = frame.pts
        for ready in self._palette.reduce(frame) if self._palette else [frame]:
            self._output.mux(self._stream.encode(ready))

    def finish(self) -> None:
        """Write what the encoder holds back."""
        self._output.mux(self._stream.encode(None))


class PaletteGraph:
    """Reduces each frame to the 256 colours that suit it best."""

    def __init__(self, width: int, height: int, time_base: Fraction) -> None:
        self._graph = Graph()
        source = self._graph.add_buffer(
            width=width, height=height, format=av.VideoFormat("yuv420p"), time_base=time_base
        )
        split = self._graph.add("split")
        choose = self._graph.add("palettegen", "stats_mode=single")
        use = self._graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=4")
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(choose, 1, 0)
        choose.link_to(use, 0, 1)
        use.link_to(self._graph.add("buffersink"))
        self._graph.configure()

    def reduce(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """Yield the frames that are ready, pts and duration kept."""
        self._graph.vpush(frame)
        while True:
            try:
                yield self._graph.vpull()
            except (BlockingIOError, EOFError):
                return


class Sound:
    """One sound track of the file that is written: copied, or encoded anew."""

    def __init__(self, output: OutputContainer, target: Target, source: AudioStream) -> None:
        self.source = source
        self._output = output
        self._is_copied = source.codec_context.codec.canonical_name in target.copied_sound
        if self._is_copied:
            self._stream = output.add_stream_from_template(source)
            return
        assert target.sound_codec is not None
        rate = OPUS_RATE_HZ if target.sound_codec == "libopus" else source.codec_context.sample_rate
        stream = output.add_stream(target.sound_codec, rate)
        assert isinstance(stream, AudioStream)
        self._stream = stream
        # More than two channels lie in an order of their own in every codec.
        self._stream.layout = "mono" if source.codec_context.layout.nb_channels == 1 else "stereo"

    def write(self, packet: Packet[AudioStream], shift_s: Fraction) -> None:
        """Write one packet of ``source``, ``shift_s`` earlier than it says."""
        shift = round(shift_s / packet.time_base)
        if not self._is_copied:
            for frame in packet.decode():
                if frame.pts is not None:
                    frame.pts -= round(shift_s / to_tick_s(frame))
                self._output.mux(self._stream.encode(frame))
        elif packet.dts is not None:
            packet.dts -= shift
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.stream = self._stream
            self._output.mux(packet)

    def finish(self) -> None:
        """Write what the encoder holds back."""
        if not self._is_copied:
            self._output.mux(self._stream.encode(None))


def keep_sound(source: InputContainer, output: OutputContainer, target: Target) -> list[Sound]:
    """Add the source's sound tracks to the file, if its format has sound."""
    tracks = source.streams.audio
    if tracks and target.sound_codec is None:
        logger.warning("a .%s has no sound; that of SRC is left out", target.container)
        return []
    known = [track for track in tracks if track.codec_context is not None]
    if len(known) < len(tracks):
        logger.warning(
            "%d sound tracks are in no known codec and left out", len(tracks) - len(known)
        )
    return [Sound(output, target, track) for track in known]
