"""A session's camera as it came, for those who want it beside the translation."""

from __future__ import annotations

import asyncio

from av import VideoFrame

from stream import frames
from stream.broadcast import Broadcast
from stream.encodings import Encodings
from stream.feed import ArrivedFrame, Finished
from stream.latest import Latest, SlotClosed
from stream.safety import Guard, SafetyThread


class Untranslated:
    """Broadcasts the camera's own frames while somebody watches them; used on the event loop.

    The translation's way is not touched: it works on copies, made in a thread, and of frames
    that nobody took in time the newest wins.
    """

    def __init__(self, safety: SafetyThread | None) -> None:
        """Make one that costs nothing until it is watched.

        Args:
            safety: says which pictures may be shown; None: all. A camera's picture may be unfit
                where its translation is fit, so it is looked at by itself.
        """
        self.broadcast = Broadcast()
        self.encodings = Encodings(self.broadcast)
        self._safety = safety
        self._guard: Guard | None = None
        self._inbox: Latest[ArrivedFrame] = Latest()

    @property
    def is_watched(self) -> bool:
        """Whether anybody would see a frame."""
        # One of those who subscribe to the broadcast is what encodes it for viewers.
        return self.encodings.is_watched or len(self.broadcast) > 1

    def submit(self, arrived: ArrivedFrame) -> None:
        """Take a frame, which stays its owner's, and return at once."""
        if self.is_watched:
            self._inbox.put(arrived)
        else:
            # Neither a picture nor a verdict of long ago is for who comes next.
            self.broadcast.forget()
            self._drop_guard()

    async def run(self) -> None:
        """Show what is submitted until :meth:`close`."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.encodings.run())
            while True:
                try:
                    arrived = await self._inbox.get()
                except SlotClosed:
                    return
                guard = self._have_guard()
                frame = await asyncio.to_thread(_copy, arrived.frame, guard)
                self.broadcast.put(Finished(arrived, frame, False))

    def close(self) -> None:
        """End it for everybody. Calling it again does nothing."""
        self._inbox.close()
        self.broadcast.close()
        self._drop_guard()

    def _have_guard(self) -> Guard | None:
        if self._guard is None and self._safety is not None:
            # The session's own guard tells its viewer; twice the same would tell nothing.
            self._guard = Guard(self._safety, lambda _level, _detail: None)
            self._safety.attach(self._guard)
        return self._guard

    def _drop_guard(self) -> None:
        if self._guard is not None and self._safety is not None:
            self._safety.detach(self._guard)
        self._guard = None


def _copy(frame: VideoFrame, guard: Guard | None) -> VideoFrame:
    copy = frames.copy_camera_frame(frame)
    return copy if guard is None else guard.cover(copy)
