"""A one-place slot where the newest item wins."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class SlotClosed(Exception):  # noqa: N818 - reads as the state it reports
    """Nothing more will come out of the slot."""


class Slot(Generic[T]):
    """A slot for one item; a newer item replaces an untaken one.

    Not synchronised: two threads that share one hold the same lock around each call.
    ``dropped`` counts the items nobody took.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._item: T | None = None

    def put(self, item: T) -> None:
        """Leave ``item`` to be taken."""
        self.dropped += self._item is not None
        self._item = item

    def take(self) -> T | None:
        """Return the item, if there is one, and empty the slot."""
        item, self._item = self._item, None
        return item

    def clear(self) -> None:
        """Drop the item, if there is one."""
        self.dropped += self._item is not None
        self._item = None

    def __bool__(self) -> bool:
        return self._item is not None


class Latest(Generic[T]):
    """A :class:`Slot` that its one consumer can wait for, on the event loop.

    Another thread puts through ``loop.call_soon_threadsafe(latest.put, item)``.
    """

    def __init__(self) -> None:
        self._slot: Slot[T] = Slot()
        self._ready = asyncio.Event()
        self._is_closed = False

    @property
    def dropped(self) -> int:
        """How many items nobody took."""
        return self._slot.dropped

    def put(self, item: T) -> None:
        """Leave ``item`` to be taken; never waits. After :meth:`close` it is dropped."""
        self._slot.put(item)
        if self._is_closed:
            self._slot.clear()
        self._ready.set()

    async def get(self) -> T:
        """Wait for an item and take it; safe to cancel.

        Raises:
            SlotClosed: :meth:`close` was called, before or meanwhile.
        """
        while True:
            await self._ready.wait()
            if self._is_closed:
                raise SlotClosed
            self._ready.clear()
            item = self._slot.take()
            if item is not None:
                return item

    def close(self) -> None:
        """End the wait of the consumer. Calling it again does nothing."""
        self._is_closed = True
        self._slot.clear()
        self._ready.set()
