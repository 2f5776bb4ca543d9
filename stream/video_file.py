"""Videos on disk: every picture translated, sound and timing kept, for ``run.py translate``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av import Packet, VideoFrame, VideoStream
from av.container import InputContainer
from av.filter import Graph
from av.stream import Disposition
from tqdm import tqdm

from stream.errors import FileRefused
from stream.video_writer import MovingPicture, Target, keep_sound, to_tick_s

Translate = Callable[[VideoFrame], VideoFrame]


@contextmanager
def open_source(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video and find its moving picture.

    Raises:
        FileRefused: it is no video.
    """
    try:
        # A play list may name files and addresses; none but this file is read.
        source = av.open(path, "r", options={"protocol_whitelist": "file"})
    except av.FFmpegError as error:
        raise FileRefused(f"{path} is not a picture or a video: {error.strerror}") from error
    with source:
        videos = [
            stream
            for stream in source.streams.video
            # Covers of music are pictures too, and "tty" is how FFmpeg shows a text file.
            if not stream.disposition & Disposition.attached_pic and source.format.name != "tty"
        ]
        if not videos:
            raise FileRefused(f"{path} is not a picture or a video ({source.format.long_name})")
        videos[0].thread_type = "AUTO"
        yield source, videos[0]


def read_first_frame(path: Path) -> VideoFrame:
    """Return a video's first picture, upright.

    Raises:
        FileRefused: it is no video, or has no picture.
    """
    with open_source(path) as (source, video):
        try:
            frame = next(source.decode(video), None)
        except av.FFmpegError as error:
            raise FileRefused(f"{path} is a damaged video: {error.strerror}") from error
        if not isinstance(frame, VideoFrame):
            raise FileRefused(f"{path} is a video without a single picture")
        return turn_upright(frame)


def translate(
    src: Path, dst: Path, target: Target, first: VideoFrame, translate_frame: Translate
) -> None:
    """Write ``src`` to ``dst`` with every picture translated.

    Args:
        src: a video.
        dst: overwritten.
        target: how to write it.
        first: what :func:`read_first_frame` gave for ``src``.
        translate_frame: gives a ``yuv420p`` frame with the pts of the frame it takes.

    Raises:
        FileRefused: ``src`` is damaged.
        FFmpegError: ``dst`` cannot be written.
    """
    with (
        open_source(src) as (source, video),
        av.open(dst, "w", target.container, container_options=target.container_options) as output,
        tqdm(total=count_frames(source, video), unit="frame") as progress,
    ):
        shift_s = to_shift_s(source)
        picture = MovingPicture(output, target, first, video)
        sounds = {sound.source.index: sound for sound in keep_sound(source, output, target)}
        packets: Iterator[Packet[Any]] = source.demux(
            [video, *(sound.source for sound in sounds.values())]
        )
        for packet in packets:
            if sound := sounds.get(packet.stream.index):
                sound.write(packet, shift_s)
                continue
            for frame in decode(packet, src):
                duration_s = (frame.duration or 0) * to_tick_s(frame)
                picture.write(translate_frame(turn_upright(frame)), duration_s, shift_s)
                progress.update()
        picture.finish()
        for sound in sounds.values():
            sound.finish()


def decode(packet: Packet[VideoStream], src: Path) -> list[VideoFrame]:
    """Decode one packet of the moving picture.

    Raises:
        FileRefused: it is damaged.
    """
    try:
        return packet.decode()
    except av.FFmpegError as error:
        at_s = float((packet.pts or 0) * packet.time_base)
        raise FileRefused(f"{src} is damaged at {at_s:.1f} s: {error.strerror}") from error


def count_frames(source: InputContainer, video: VideoStream) -> int | None:
    """Return how many frames to expect, if the container gives any hint."""
    if video.frames:
        return video.frames
    if source.duration and video.average_rate:
        return round(source.duration / av.time_base * video.average_rate)
    return None


def to_shift_s(source: InputContainer) -> Fraction:
    """Return what all times are lessened by: transport streams begin anywhere."""
    return Fraction(max(0, source.start_time or 0), av.time_base)


def turn_upright(frame: VideoFrame) -> VideoFrame:
    """Turn a frame as its display matrix says, by multiples of 90°; pts kept."""
    quarters = round(frame.rotation / 90) % 4
    if quarters == 0:
        return frame
    graph = Graph()
    turns = ["", "cclock", "", "clock"][quarters]
    nodes = [
        graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        ),
        *([graph.add("transpose", turns)] if turns else [graph.add("hflip"), graph.add("vflip")]),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*nodes).configure()
    graph.vpush(frame)
    return graph.vpull()
