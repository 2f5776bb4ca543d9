"""PromptThread: encodes prompts beside the frames."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from stream.errors import EngineNotReady, ServerFull

logger = logging.getLogger(__name__)

MAX_WAITING = 64

Encode = Callable[[str], object]
"""An engine's own, which it keeps by text."""


class PromptThread:
    """Has prompts encoded one after the other, in a thread of its own; used on the event loop.

    A text encoder takes as long as several frames. The engine's thread, which draws everybody's,
    finds the prompt encoded when it first needs it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Encode, str, Future[None]]] = deque()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to work."""
        # A daemon: an encoder that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="prompts", daemon=True)
        self._thread.start()

    async def encode(self, encode: Encode, prompt: str) -> None:
        """Have one prompt encoded; what ``encode`` raises is raised here.

        Raises:
            ServerFull: 64 wait already.
            EngineNotReady: after :meth:`close`.
        """
        done: Future[None] = Future()
        with self._changed:
            if self._is_closed:
                raise EngineNotReady("the server is stopping")
            if len(self._waiting) >= MAX_WAITING:
                raise ServerFull(f"{MAX_WAITING} prompts wait to be encoded already", 1)
            self._waiting.append((encode, prompt, done))
            self._changed.notify()
        await asyncio.wrap_future(done)

    async def close(self, deadline_s: float) -> None:
        """Stop after the prompt at work, and refuse those that wait."""
        with self._changed:
            self._is_closed = True
            waiting = [done for _, _, done in self._waiting]
            self._waiting.clear()
            self._changed.notify()
        for done in waiting:
            if done.set_running_or_notify_cancel():
                done.set_exception(EngineNotReady("the server is stopping"))
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, deadline_s)
            if self._thread.is_alive():
                logger.error("a prompt was not encoded within %g s", deadline_s)

    # In its own thread.

    def _run(self) -> None:
        while (work := self._take()) is not None:
            encode, prompt, done = work
            if not done.set_running_or_notify_cancel():
                continue
            try:
                encode(prompt)
            except Exception as error:
                # Not lost: it is raised again where the answer is awaited.
                done.set_exception(error)
            else:
                done.set_result(None)

    def _take(self) -> tuple[Encode, str, Future[None]] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            return None if self._is_closed else self._waiting.popleft()
