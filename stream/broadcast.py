"""Broadcast: one session's finished pictures, for everybody who watches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from av import VideoFrame

from stream.feed import Finished
from stream.latest import Latest

logger = logging.getLogger(__name__)

_FRAME_INTERVAL_S = 1 / 30


class Broadcast:
    """Gives each finished frame to everybody who has subscribed; used on the event loop.

    Nobody holds up anybody: each subscriber has a slot of its own, where the newest wins.
    """

    def __init__(self) -> None:
        self._slots: set[Latest[Finished]] = set()
        self._listeners: list[Callable[[Finished], None]] = []
        self.newest: Finished | None = None
        """What was shown last."""
        self._ended = asyncio.Event()
        self._last_pts = -1
        # Added to the input's pts; stays 0 while these grow from 0.
        self._offset = 0
        self._has_gone_back = False

    def __len__(self) -> int:
        """How many have subscribed."""
        return len(self._slots)

    def forget(self) -> None:
        """Let the newest frame go, so that nobody who comes later gets it."""
        self.newest = None

    def subscribe(self) -> Latest[Finished]:
        """Return a new slot, which holds the newest frame if there is one already."""
        slot: Latest[Finished] = Latest()
        if self.newest is not None:
            slot.put(self.newest)
        self._slots.add(slot)
        return slot

    def unsubscribe(self, slot: Latest[Finished]) -> None:
        """Close a slot. Calling it again does nothing."""
        self._slots.discard(slot)
        slot.close()

    def listen(self, listener: Callable[[Finished], None]) -> None:
        """Have every frame from now on given to somebody who has to take it at once."""
        self._listeners.append(listener)

    def put(self, finished: Finished) -> None:
        """Hand a frame to everybody; its pts is set right before anybody sees it."""
        self._put_in_order(finished.frame)
        self.newest = finished
        for slot in self._slots:
            slot.put(finished)
        for listener in self._listeners:
            listener(finished)

    def close(self) -> None:
        """End it for everybody. Calling it again does nothing."""
        self._ended.set()
        for slot in self._slots:
            slot.close()

    async def ended(self) -> None:
        """Wait until :meth:`close`."""
        await self._ended.wait()

    def _put_in_order(self, frame: VideoFrame) -> None:
        """Keep pts growing: a negative one ends aiortc's sender, an equal one its encoder."""
        assert frame.pts is not None, "a decoded frame has a pts"
        assert frame.time_base is not None, "a decoded frame has a time base"
        pts = frame.pts + self._offset
        if pts <= self._last_pts:
            step = max(1, round(_FRAME_INTERVAL_S / frame.time_base))
            # Said once: a stream that does this may do it with every frame.
            level = logging.DEBUG if self._has_gone_back else logging.WARNING
            logger.log(level, "pts %d after %d: the clock starts again", pts, self._last_pts)
            self._has_gone_back = True
            self._offset += self._last_pts + step - pts
            pts = self._last_pts + step
        self._last_pts = pts
        frame.pts = pts
