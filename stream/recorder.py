"""Recorder: what is kept of one session, and only what the operator allows.

Without ``--record-dir`` nothing is ever written; without ``--clips`` nothing is remembered.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from av import VideoFrame

from stream.broadcast import Broadcast
from stream.clip import ClipRing, write_clip
from stream.config import ServerConfig
from stream.errors import RequestRefused
from stream.feed import Finished
from stream.recording import Label, Recording
from stream.sound import Sound
from stream.stall import SIGN_AFTER_S
from stream.tape import Tape, TapedPicture

logger = logging.getLogger(__name__)

NO_FOLDER = "this server records nothing: start it with --record-dir FOLDER"
NO_CLIPS = "this server keeps no clips: start it with --clips"
NO_CAMERA = "with --safety only what viewers see is recorded: leave the camera out"


class Scene(Protocol):
    """The session that is recorded."""

    name: str
    alias: str | None
    broadcast: Broadcast
    sound: Sound

    @property
    def has_sound(self) -> bool:
        """Whether there may be sound."""

    def describe(self) -> dict[str, str]:
        """Return the tags of a file that is made now."""

    def notice(self, level: str, detail: str) -> None:
        """Take one sentence for the viewer."""


@dataclass(slots=True)
class Film:
    """One file that is being recorded."""

    recording: Recording
    tape: Tape
    dropped_before: int
    is_cut: bool = False
    """Whether its tape was told to let it end."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def to_json(self) -> dict[str, Any]:
        """Return its figures."""
        return {
            "file": self.recording.path.name,
            "seconds": round(self.recording.length_s, 1),
            "bytes": self.recording.size_bytes,
            "dropped": self.tape.dropped - self.dropped_before,
        }


class Recorder:
    """Records one session on request, and keeps its last 30 s; used on the event loop.

    Pictures are encoded and written in threads of their own: one for what viewers see, one for
    the camera while that is recorded too.
    """

    def __init__(self, config: ServerConfig, scene: Scene, *, is_guarded: bool) -> None:
        """Make one that does nothing yet.

        Args:
            config: says what is allowed.
            scene: what is recorded.
            is_guarded: viewers may see less than the camera does.
        """
        self._config = config
        self._scene = scene
        self._is_guarded = is_guarded
        self._ring = ClipRing() if config.keeping.clips else None
        self._tape: Tape | None = None
        self._camera_tape: Tape | None = None
        # What has been told to end, but may still be writing.
        self._ending: set[Tape] = set()
        self._films: list[Film] = []
        # One start or stop at a time; one clip at a time.
        self._changing = asyncio.Lock()
        self._clipping = asyncio.Lock()
        self._is_closed = False

    @property
    def is_busy(self) -> bool:
        """Whether something is recorded now."""
        return bool(self._films)

    def open(self) -> None:
        """Begin to listen, and to keep if that is allowed."""
        self._scene.broadcast.listen(self._put)
        self._scene.sound.follow(self._put_sound)
        if self._ring is not None:
            self._open_tape()

    def to_json(self) -> dict[str, Any]:
        """Return what is allowed, and the figures of what is recorded now."""
        return {
            "may_record": self._config.keeping.record_dir is not None,
            "may_clip": self._config.keeping.clips,
            "files": [film.to_json() for film in self._films],
        }

    def put_camera(self, frame: VideoFrame, arrived_s: float) -> None:
        """Take one of the camera's own pictures, which may be recorded too."""
        if self._camera_tape is not None:
            assert frame.pts is not None, "a decoded frame has a pts"
            assert frame.time_base is not None, "a decoded frame has a time base"
            own_s = float(frame.pts * frame.time_base)
            self._camera_tape.put_picture(TapedPicture(frame, own_s, arrived_s))

    async def start(self, *, with_camera: bool) -> dict[str, Any]:
        """Begin to record, and return :meth:`to_json`.

        Args:
            with_camera: the camera's own pictures too, into a second file.

        Raises:
            RequestRefused: it is not allowed, is done already, or cannot be written.
        """
        folder = self._config.keeping.record_dir
        if folder is None:
            raise RequestRefused(403, NO_FOLDER)
        if with_camera and self._is_guarded:
            raise RequestRefused(403, NO_CAMERA)
        async with self._changing:
            if self._films or self._is_closed:
                raise RequestRefused(409, "this session is recorded already, or has ended")
            scene = self._scene
            label = Label(scene.describe(), time.perf_counter(), scene.has_sound)
            stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{scene.alias or scene.name}"
            try:
                await self._roll(folder / f"{stem}.mp4", label, self._open_tape)
                if with_camera:
                    path = folder / f"{stem}_camera.mp4"
                    await self._roll(path, label, self._open_camera_tape)
            except OSError as error:
                self._cut()
                raise RequestRefused(
                    507, f"no recording can be written: {error.strerror or error}"
                ) from error
            return self.to_json()

    async def stop(self) -> dict[str, Any]:
        """End the recording, and return the last figures of its files.

        Raises:
            RequestRefused: there is none, or the disk does not answer.
        """
        async with self._changing:
            films = list(self._films)
            if not films:
                raise RequestRefused(409, "this session is not recorded")
            self._cut()
            try:
                async with asyncio.timeout(self._config.close_timeout_s):
                    for film in films:
                        await film.ended.wait()
            except TimeoutError:
                raise RequestRefused(503, "the disk that is recorded to does not answer") from None
            return {**self.to_json(), "files": [film.to_json() for film in films]}

    async def clip(self) -> bytes:
        """Return the last 30 s as an MP4.

        Raises:
            RequestRefused: it is not allowed, or nothing has been seen yet.
            TapeEnded: the session has ended.
        """
        if self._ring is None:
            raise RequestRefused(403, NO_CLIPS)
        async with self._clipping:
            tape = self._open_tape()
            try:
                async with asyncio.timeout(self._config.close_timeout_s):
                    take = await asyncio.wrap_future(tape.call(self._ring.take_out))
            except TimeoutError:
                raise RequestRefused(503, "the disk that is recorded to does not answer") from None
            if take is None:
                raise RequestRefused(409, "nothing has been seen yet that a clip could be made of")
            return await asyncio.to_thread(write_clip, take, self._scene.describe())

    async def close(self) -> None:
        """End everything, within a deadline. Calling it again does nothing."""
        self._is_closed = True
        for tape in (self._tape, self._camera_tape):
            if tape is not None:
                self._end_tape(tape)
        for tape in list(self._ending):
            if not await tape.ended(self._config.close_timeout_s):
                logger.error("a recording of %s could not be finished in time", self._scene.name)
            self._ending.discard(tape)

    # In all directions.

    def _put(self, finished: Finished) -> None:
        """Give a picture that viewers see to the tape."""
        if self._tape is None:
            return
        frame, arrived = finished.frame, finished.arrived
        assert frame.pts is not None, "a finished frame has a pts"
        assert frame.time_base is not None, "a finished frame has a time base"
        # After stand-ins, and while they are shown, a picture has the pts of a later one.
        is_late = time.perf_counter() - arrived.arrived_s > SIGN_AFTER_S
        self._tape.put_picture(
            TapedPicture(
                frame,
                float(frame.pts * frame.time_base),
                arrived.complete_s or arrived.arrived_s,
                is_own=not (finished.is_repeat or is_late),
            )
        )

    def _put_sound(self, packet: object, arrived_s: float) -> None:
        for tape in (self._tape, self._camera_tape):
            if tape is not None:
                tape.put_sound(packet, arrived_s)

    async def _roll(self, path: Path, label: Label, open_tape: Callable[[], Tape]) -> None:
        loop = asyncio.get_running_loop()

        def on_end(why: str) -> None:
            try:
                loop.call_soon_threadsafe(self._ended, recording, why)
            except RuntimeError:
                logger.debug("a recording ended after the event loop was closed")

        spare_bytes = self._config.keeping.spare_bytes
        recording = await asyncio.to_thread(Recording, path, label, on_end, spare_bytes)
        tape = open_tape()
        self._films.append(Film(recording, tape, tape.dropped))
        tape.add(recording)

    def _cut(self) -> None:
        for film in self._films:
            if not film.is_cut:
                film.is_cut = True
                film.tape.remove(film.recording)

    def _ended(self, recording: Recording, why: str) -> None:
        film = next(film for film in self._films if film.recording is recording)
        self._films.remove(film)
        film.tape.remove(recording)
        if film.tape is self._camera_tape or self._ring is None:
            self._end_tape(film.tape)
        film.ended.set()
        figures = film.to_json()
        logger.info(
            "recorded %(file)s: %(seconds)g s, %(bytes)d bytes, %(dropped)d pictures dropped",
            figures,
        )
        if why:
            self._scene.notice("warning", why)

    def _open_tape(self) -> Tape:
        # One that has failed is replaced by the next that want it.
        if self._tape is None or self._tape.is_ended:
            self._tape = Tape(self._scene.name)
            if self._ring is not None:
                self._tape.add(self._ring)
        return self._tape

    def _open_camera_tape(self) -> Tape:
        self._camera_tape = Tape(f"{self._scene.name} camera")
        return self._camera_tape

    def _end_tape(self, tape: Tape) -> None:
        tape.end()
        self._ending.add(tape)
        if tape is self._tape:
            self._tape = None
        if tape is self._camera_tape:
            self._camera_tape = None
