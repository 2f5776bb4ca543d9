"""Tape: a session's pictures and sound, encoded for whatever keeps them.

Viewers' encoders follow their networks: they change size and rate, and hold up whoever shares
them. So what is kept has an encoder of its own, in a thread that gives way to the others.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import av
from av import VideoFrame

from pipeline.engines import Size
from stream import frames
from stream.errors import TapeEnded
from stream.niceness import give_way
from stream.opus import to_duration_s
from stream.tape_encoder import TapedPacket, TapeEncoder
from stream.timeline import Timeline

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_WAITING_PICTURES = 8
"""A quarter of a second: a disk that is slow for longer costs pictures, the oldest first."""
MAX_WAITING_SOUND = 150
_TICK_S = 1 / 90_000
_NICENESS = 5


class TapeReader(Protocol):
    """What keeps a tape's packets; every method is called in the tape's thread."""

    from_s: float
    """``time.perf_counter()``: it wants no picture from before that."""
    keeps_size: bool
    """Whether it can hold pictures of one size only."""

    def begin(self, size: Size) -> None:
        """Learn the pictures' size. The next one is a key frame; it may begin more than once."""

    def take(self, packet: TapedPacket) -> None:
        """Take one packet; sound may come before the first picture."""

    def end(self, why: str) -> None:
        """Learn that nothing more comes, and why if that is not as it should be."""


@dataclass(frozen=True, slots=True)
class TapedPicture:
    """A frame that waits to be encoded."""

    frame: VideoFrame
    """Others may read it meanwhile; its pts is not looked at."""
    own_s: float
    """By the sender's clock."""
    arrived_s: float
    """``time.perf_counter()``."""
    is_own: bool = True
    """False: its time is borrowed from another one."""


class Tape:
    """Encodes for its readers in a thread of its own; fed and asked on the event loop.

    At most 8 pictures and 3 s of sound wait: a newer one replaces the oldest; lost pictures are
    counted. Jobs wait for as long as somebody waits for them.
    The size is that of the first picture. A picture of more pixels begins the tape anew, unless
    a reader keeps its size; all others are fitted.
    """

    def __init__(self, name: str) -> None:
        self.dropped = 0
        """Pictures that were replaced before they were encoded."""
        self._changed = threading.Condition()
        self._pictures: deque[TapedPicture] = deque()
        self._sounds: deque[tuple[av.Packet[Any], float]] = deque(maxlen=MAX_WAITING_SOUND)
        # What to do, and the answer that it gives.
        self._jobs: deque[tuple[Callable[[], None], Future[Any]]] = deque()
        self._is_ended = False
        # The rest belongs to the thread.
        self._readers: list[TapeReader] = []
        # Those that wait for their first picture.
        self._unbegun: list[TapeReader] = []
        self._encoder: TapeEncoder | None = None
        self._picture_times = Timeline()
        self._sound_times = Timeline()
        # A daemon: a disk that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"tape {name}", daemon=True)
        self._thread.start()

    @property
    def is_ended(self) -> bool:
        """Whether nothing more is encoded: it was told to end, or has failed."""
        return self._is_ended

    def put_picture(self, picture: TapedPicture) -> None:
        """Leave a picture to be encoded; with no room it replaces the oldest."""
        with self._changed:
            if len(self._pictures) == MAX_WAITING_PICTURES:
                self._pictures.popleft()
                self.dropped += 1
            self._pictures.append(picture)
            self._changed.notify()

    def put_sound(self, packet: object, arrived_s: float) -> None:
        """Leave a packet of sound; decoded sound is not kept."""
        if isinstance(packet, av.Packet):
            with self._changed:
                self._sounds.append((packet, arrived_s))
                self._changed.notify()

    def call(self, job: Callable[[], T]) -> Future[T]:
        """Have something done in the tape's thread.

        After :meth:`end` the answer is :class:`TapeEnded`.
        """
        answer: Future[T] = Future()

        def run() -> None:
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(job())
                except Exception as error:
                    answer.set_exception(error)

        with self._changed:
            if self._is_ended:
                answer.set_exception(TapeEnded("this session is not kept any more"))
            else:
                # On a disk that hangs, those that were given up must not pile up.
                waiting = (job for job in self._jobs if not job[1].cancelled())
                self._jobs = deque([*waiting, (run, answer)])
                self._changed.notify()
        return answer

    def add(self, reader: TapeReader) -> Future[None]:
        """Give the packets to a reader, from a key frame on that is made for it."""

        def add() -> None:
            self._readers.append(reader)
            self._unbegun.append(reader)

        return self.call(add)

    def remove(self, reader: TapeReader) -> Future[None]:
        """Let a reader end."""
        return self.call(lambda: self._remove(reader))

    def end(self) -> None:
        """Let all readers end, when what waits is done. Calling it again does nothing."""
        with self._changed:
            self._is_ended = True
            self._changed.notify()

    async def ended(self, deadline_s: float) -> bool:
        """Wait until all has been done after :meth:`end`; False: not in time."""
        await asyncio.to_thread(self._thread.join, deadline_s)
        return not self._thread.is_alive()

    # In the tape's thread.

    def _run(self) -> None:
        give_way(_NICENESS)
        why = ""
        try:
            while (work := self._take()) is not None:
                work()
        except Exception:
            logger.exception("a tape failed")
            why = "the server made a mistake; its log says more"
        self.end()
        for reader in self._readers:
            reader.end(why)
        with self._changed:
            for _, answer in self._jobs:
                if answer.set_running_or_notify_cancel():
                    answer.set_exception(TapeEnded("this session is not kept any more"))

    def _take(self) -> Callable[[], None] | None:
        """Wait for something to do; None when nothing more comes and all is done."""
        with self._changed:
            while not (self._jobs or self._sounds or self._pictures or self._is_ended):
                self._changed.wait()
            if self._jobs:
                return self._jobs.popleft()[0]
            if self._sounds:
                packet, arrived_s = self._sounds.popleft()
                return lambda: self._take_sound(packet, arrived_s)
            if self._pictures:
                picture = self._pictures.popleft()
                return lambda: self._take_picture(picture)
            return None

    def _remove(self, reader: TapeReader) -> None:
        if reader in self._readers:
            self._readers.remove(reader)
            self._unbegun = [other for other in self._unbegun if other is not reader]
            reader.end("")

    def _take_sound(self, packet: av.Packet[Any], arrived_s: float) -> None:
        assert packet.pts is not None, "an Opus packet has a pts"
        data = bytes(packet)
        duration_s = to_duration_s(data)
        own_s = float(packet.pts * packet.time_base)
        at_s = self._sound_times.place(own_s, arrived_s, _TICK_S)
        for reader in self._readers:
            reader.take(TapedPacket(data, at_s, duration_s, is_sound=True))

    def _take_picture(self, picture: TapedPicture) -> None:
        at_s = self._picture_times.place(
            picture.own_s, picture.arrived_s, _TICK_S, is_own=picture.is_own
        )
        begins = [reader for reader in self._unbegun if reader.from_s <= at_s]
        if len(self._unbegun) - len(begins) == len(self._readers):
            return  # nobody wants it
        encoder = self._fitting_encoder(frames.output_size(picture.frame))
        if encoder is not self._encoder:
            self._encoder = encoder
            begins = [reader for reader in self._readers if reader.from_s <= at_s]
        self._unbegun = [reader for reader in self._unbegun if reader not in begins]
        for reader in begins:
            reader.begin(encoder.size)
        for packet in encoder.encode(picture.frame, at_s, force_key_frame=bool(begins)):
            for reader in self._readers:
                if reader not in self._unbegun:
                    reader.take(packet)

    def _fitting_encoder(self, size: Size) -> TapeEncoder:
        encoder = self._encoder
        if encoder is not None:
            is_larger = size.width * size.height > encoder.size.width * encoder.size.height
            if not is_larger or any(reader.keeps_size for reader in self._readers):
                return encoder
        return TapeEncoder(size)
