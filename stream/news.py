"""News: whoever asks waits until something has changed, for a while and not in crowds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stream.errors import RequestRefused, ServerFull


def parse_version(text: str | None, of: str) -> int | None:
    """Read the version of something that a client knows: what ``?after=`` says.

    Args:
        text: the query's; None: there is none, and nothing is known.
        of: what has versions, with its article, for who is refused.

    Raises:
        RequestRefused: 422, it is no version.
    """
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 15:
        raise RequestRefused(422, f"after must be the version of {of} (got {text[:40]!a})")
    return int(text)


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
