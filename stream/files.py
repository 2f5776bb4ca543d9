"""One file in, one file out: what ``run.py translate`` does.

DST is written beside its place and takes it when it is whole, so a run that fails or is
interrupted leaves DST as it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av

from pipeline.engines import Engine, Image, Job, PixelFormat, Settings, Size, TemporalState
from stream import picture_file, video_file
from stream.controls import MAX_SEED
from stream.errors import ConfigRefused, FileRefused
from stream.frames import Placement, to_content, to_frame, to_image
from stream.status import EngineInfo
from stream.video_writer import TARGETS

LONGEST_SIDE_PX = 512
"""The largest size that the embedded model was trained at."""
SHORTEST_SIDE_PX = 64
SIZE_STEP_PX = 16


@dataclass(frozen=True, slots=True)
class FileJob:
    """What to translate, how, and into what; checked when it is made."""

    src: Path
    dst: Path
    prompt: str
    strength: float | None = None
    """In [0, 1]; None: what suits the model."""
    stability: float = 0.5
    """In [0, 1]; a single picture does not read it."""
    seed: int = 0
    size: Size | None = None
    """Pixels the model works at; None to choose them by the source."""
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("strength", "stability"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise ConfigRefused(f"--{name} takes 0 to 1 (got {value:g})")
        if not 0 <= self.seed <= MAX_SEED:
            raise ConfigRefused(f"--seed takes 0 to {MAX_SEED} (got {self.seed})")
        check_source(self.src)
        check_target(self.src, self.dst, self.overwrite)


def check_source(src: Path) -> None:
    """See that there is a file to read.

    Raises:
        FileRefused: there is none, or it may not be read.
    """
    if not src.is_file():
        raise FileRefused(f"{src} is {'a folder' if src.is_dir() else 'missing'}; SRC is a file")
    if not os.access(src, os.R_OK):
        raise FileRefused(f"{src} may not be read by this user")


def check_target(src: Path, dst: Path, overwrite: bool) -> None:
    """See that DST has an ending we know and a place to lie.

    Raises:
        FileRefused: it has not, or it is SRC, or it exists and may not be replaced.
    """
    endings = sorted({*picture_file.ENDINGS, *TARGETS})
    if dst.suffix.lower() not in endings:
        raise FileRefused(f"{dst} has no ending that says a format; use {', '.join(endings)}")
    if not dst.absolute().parent.is_dir():
        raise FileRefused(f"{dst} cannot be written: there is no folder {dst.absolute().parent}")
    if dst.is_dir():
        raise FileRefused(f"{dst} is a folder; DST is a file")
    if dst.exists() and src.samefile(dst):
        raise FileRefused(f"{dst} is SRC itself; give DST another name")
    if dst.exists() and not overwrite:
        raise FileRefused(f"{dst} exists; --overwrite replaces it")


def translate_file(job: FileJob, make_engine: Callable[[Size], Engine]) -> None:
    """Translate a picture or a video.

    Args:
        job: what to do.
        make_engine: called once, with the size to work at.

    Raises:
        FileRefused: SRC is no picture or video, or DST cannot be written.
        PipelineError: the model cannot be loaded, does not know the prompt, or failed.
    """
    try:
        with write_beside(job.dst, job.overwrite) as part:
            if picture_file.is_picture(job.src):
                translate_picture(job, make_engine, part)
            else:
                translate_video(job, make_engine, part)
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileRefused(f"{job.src} could not be translated into {job.dst}: {reason}") from error


def translate_picture(job: FileJob, make_engine: Callable[[Size], Engine], part: Path) -> None:
    """Translate a single picture into ``part``.

    Raises:
        FileRefused: the picture is damaged, or DST's ending is a video's.
    """
    if job.dst.suffix.lower() not in picture_file.ENDINGS:
        endings = ", ".join(picture_file.ENDINGS)
        raise FileRefused(f"{job.src} is a picture; DST ends in one of {endings} (got {job.dst})")
    picture = picture_file.read(job.src)
    frame = picture.frame
    with Translator.start(job, make_engine, Size(frame.width, frame.height)) as translator:
        content = to_content(*translator.translate(frame))
    picture_file.write(picture, content, part)


def translate_video(job: FileJob, make_engine: Callable[[Size], Engine], part: Path) -> None:
    """Translate a video into ``part``, sound and timing kept.

    Raises:
        FileRefused: SRC is no video, is damaged, or DST's ending is a picture's.
    """
    first = video_file.read_first_frame(job.src)
    target = TARGETS.get(job.dst.suffix.lower())
    if target is None:
        endings = ", ".join(TARGETS)
        raise FileRefused(f"{job.src} is a video; DST ends in one of {endings} (got {job.dst})")
    with Translator.start(job, make_engine, Size(first.width, first.height)) as translator:

        def translate(frame: av.VideoFrame) -> av.VideoFrame:
            image, placement, pixel_format = translator.translate(frame)
            return to_frame(image, placement, frame, pixel_format)

        video_file.translate(job.src, part, target, first, translate)


class Translator:
    """One engine and one look, frame after frame."""

    def __init__(self, engine: Engine, job: FileJob) -> None:
        self._engine = engine
        words = job.prompt or EngineInfo.of(engine).default_prompt
        self._conditioning = engine.encode_prompt(words)
        strength = engine.default_strength if job.strength is None else job.strength
        self._settings = Settings(strength, job.seed, job.stability)
        self._state = TemporalState()
        self._placement: Placement | None = None

    @classmethod
    @contextmanager
    def start(
        cls, job: FileJob, make_engine: Callable[[Size], Engine], source: Size
    ) -> Iterator[Translator]:
        """Build the engine for a source of this size, and close it at the end."""
        engine = make_engine(job.size or choose_size(source))
        try:
            yield cls(engine, job)
        finally:
            engine.close()

    def translate(self, frame: av.VideoFrame) -> tuple[Image, Placement, PixelFormat]:
        """Return the engine's image, where in it the picture lies, and its pixel format."""
        pixel_format = self._engine.pixel_format
        image, placement = to_image(frame, self._engine.size, pixel_format)
        if placement != self._placement:
            self._state.forget()
        self._placement = placement
        job = Job(image, self._conditioning, self._settings, self._state)
        (result,) = self._engine.translate([job])
        return result, placement, pixel_format


def choose_size(source: Size) -> Size:
    """Choose where the model works: near the source's own size, as far as it was trained.

    Returns:
        Sides that are multiples of 16 from 64 to 512, of about the source's aspect.
    """
    ratio = min(1.0, LONGEST_SIDE_PX / max(source.width, source.height))
    width, height = (
        max(SHORTEST_SIDE_PX, round(side * ratio / SIZE_STEP_PX) * SIZE_STEP_PX)
        for side in (source.width, source.height)
    )
    return Size(width, height)


@contextmanager
def write_beside(dst: Path, overwrite: bool) -> Iterator[Path]:
    """Give a path beside ``dst`` to write to; it takes ``dst``'s place if all went well.

    Raises:
        FileRefused: ``dst`` has come to exist meanwhile and may not be replaced.
    """
    part = dst.with_name(f".{dst.stem}.{os.getpid()}.part{dst.suffix}")
    try:
        yield part
        if dst.exists() and not overwrite:
            raise FileRefused(f"{dst} has come to exist meanwhile; --overwrite replaces it")
        part.replace(dst)
    finally:
        part.unlink(missing_ok=True)
