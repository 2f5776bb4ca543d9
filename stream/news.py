"""News: whoever asks waits until something has changed, for a while and not in crowds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stream.errors import ServerFull


class News:
    """Wakes who waits; used on the event loop."""

    def __init__(self, subject: str, longest_s: float, most: int) -> None:
        """Begin with nobody waiting.

        Args:
            subject: what there may be news of, for who is refused.
            longest_s: nobody waits for longer.
            most: so many may wait at once.
        """
        self._subject = subject
        self._longest_s = longest_s
        self._most = most
        self._waiting = 0
        self._told = asyncio.Event()
        self._is_closed = False

    def tell(self) -> None:
        """Have everybody who waits look again."""
        self._told.set()
        self._told = asyncio.Event()

    def close(self) -> None:
        """Let everybody go, who waits and who comes. Calling it again does nothing."""
        self._is_closed = True
        self.tell()

    async def until(self, is_there: Callable[[], bool]) -> None:
        """Wait until ``is_there``, which is asked after each :meth:`tell`, or for long enough.

        Raises:
            ServerFull: too many wait already.
        """
        if self._waiting >= self._most:
            raise ServerFull(f"{self._most} wait for news of {self._subject} already")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._longest_s):
                while not self._is_closed and not is_there():
                    await self._told.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting -= 1
