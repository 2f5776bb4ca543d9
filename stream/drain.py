"""Drain: from the first signal to the end, with a word to who is there."""

from __future__ import annotations

import asyncio
import logging
import signal

from stream.sessions import Sessions

logger = logging.getLogger(__name__)


class Drain:
    """Waits for a signal, then for the sessions to end; used on the event loop.

    SIGTERM lets them go on for a time. A second signal, or SIGINT, which somebody at the
    keyboard sends, ends the server at once.
    """

    def __init__(self, sessions: Sessions, limit_s: float) -> None:
        """Do nothing yet.

        Args:
            sessions: who is let go.
            limit_s: how long they may go on.
        """
        self._sessions = sessions
        self._limit_s = limit_s
        self._asked = asyncio.Event()
        self._over = asyncio.Event()

    def signalled(self, number: int) -> None:
        """Take a signal."""
        if self._asked.is_set() or number == signal.SIGINT:
            self._over.set()
        self._asked.set()

    async def wait(self) -> None:
        """Return when the server is to end."""
        await self._asked.wait()
        if self._over.is_set() or self._limit_s == 0 or len(self._sessions) == 0:
            return
        logger.info("draining: %d sessions, %g s at most", len(self._sessions), self._limit_s)
        self._sessions.drain(
            f"The server is about to stop: this session ends within {self._limit_s:g} s.",
            self._limit_s,
        )
        self._sessions.on_change.append(self._look)
        try:
            async with asyncio.timeout(self._limit_s):
                await self._over.wait()
        except TimeoutError:
            logger.info("%d sessions are still there", len(self._sessions))
        finally:
            self._sessions.on_change.remove(self._look)

    def _look(self) -> None:
        if len(self._sessions) == 0:
            self._over.set()
