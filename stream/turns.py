"""Turns: who is served next, and by which engine."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.engines import Engine
from stream.controls import Controls
from stream.errors import EngineNotReady, ServerFull
from stream.feed import ArrivedFrame, Feed

T = TypeVar("T")

MAX_PICTURES = 32
# A picture that has waited this long gets one turn although live frames wait: with a model
# slower than the camera they always do. So pictures take at most one turn a second from live
# frames: while the page's two dozen previews are made, a session skips that many frames.
PICTURE_PATIENCE_S = 1.0


@dataclass(slots=True)
class Request:
    """One call of the engine that is not a live frame."""

    call: Callable[[Engine], Any]
    answer: Future[Any]
    asked_s: float


@dataclass(frozen=True, slots=True)
class Share:
    """One session's part of a batch, with the settings that were valid when it was taken."""

    feed: Feed
    arrived: ArrivedFrame
    controls: Controls


Work = Request | list[Share]


class Turns:
    """What waits for the engine; used by the event loop and the engines' threads.

    One condition guards everything, and an idle engine waits on it. Live frames come first, in
    turn, then single pictures, whose lane is bounded: a full one refuses. A frame's place holds
    one: a newer frame replaces it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._feeds: deque[Feed] = deque()
        self._pictures: deque[Request] = deque()
        self._last_picture_s = time.perf_counter()
        # Who may take work, and who waits to do so.
        self._holder: object | None = None
        self._heir: object | None = None
        self._is_closed = False

    # For the event loop: nothing here waits longer than another thread holds the lock.

    def attach(self, feed: Feed) -> None:
        """Give a session a place."""
        with self._changed:
            self._feeds.append(feed)

    def detach(self, feed: Feed) -> None:
        """Take its place away; a frame in the engine is still delivered."""
        with self._changed:
            if feed in self._feeds:
                self._feeds.remove(feed)
            feed.inbox.clear()

    def feeds(self) -> list[Feed]:
        """Return every session that has a place."""
        with self._changed:
            return list(self._feeds)

    def submit(self, feed: Feed, arrived: ArrivedFrame) -> None:
        """Leave a frame; it replaces one that still waits."""
        with self._changed:
            feed.inbox.put(arrived)
            self._changed.notify_all()

    def withdraw(self, feed: Feed) -> None:
        """Take back a frame that still waits, because a later one goes past the engine."""
        with self._changed:
            feed.inbox.clear()
            feed.has_gap = True

    def ask_patiently(self, call: Callable[[Engine], T]) -> Future[T]:
        """Have ``call`` run in the engine's thread when no live frame waits.

        Raises:
            ServerFull: 32 wait already.
            EngineNotReady: after :meth:`close`.
        """
        answer: Future[T] = Future()
        with self._changed:
            if self._is_closed:
                raise EngineNotReady("the server is stopping")
            if len(self._pictures) >= MAX_PICTURES:
                raise ServerFull(f"{MAX_PICTURES} requests wait for the model already", 1)
            self._pictures.append(Request(call, answer, time.perf_counter()))
            self._changed.notify_all()
        return answer

    def refuse_waiting(self, reason: str) -> None:
        """Answer every request that waits with :class:`EngineNotReady`."""
        with self._changed:
            waiting = list(self._pictures)
            self._pictures.clear()
        for request in waiting:
            if request.answer.set_running_or_notify_cancel():
                request.answer.set_exception(EngineNotReady(reason))

    def close(self) -> None:
        """Let every engine stop after its batch. Calling it again does nothing."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self.refuse_waiting("the server is stopping")

    # For the engines' threads.

    def claim(self, who: object) -> bool:
        """Wait until the engine at work has left, then take its place.

        Returns:
            False if everything was closed meanwhile.
        """
        with self._changed:
            self._heir = who
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._holder is None or self._is_closed)
            self._heir = None
            if self._is_closed:
                return False
            self._holder = who
            return True

    def release(self, who: object) -> None:
        """Leave, after the engine is closed."""
        with self._changed:
            if self._holder is who:
                self._holder = None
                self._changed.notify_all()

    def is_held(self, besides: object) -> bool:
        """Tell whether some other engine than ``besides`` is at work."""
        with self._changed:
            return self._holder is not None and self._holder is not besides

    def pause(self, duration_s: float) -> bool:
        """Wait between two tries to build an engine.

        Returns:
            False, at once, when the engine at work has to leave.
        """
        with self._changed:
            return not self._changed.wait_for(self._must_leave, duration_s)

    def take(self, max_batch: int) -> Work | None:
        """Wait for something to do.

        Returns:
            A request, 1 to ``max_batch`` frames of as many sessions, or None when the engine
            at work has to leave.
        """
        with self._changed:
            while not self._must_leave():
                work = self._next(max_batch)
                if work:
                    return work
                self._changed.wait()
            return None

    def _must_leave(self) -> bool:
        return self._is_closed or self._heir is not None

    def _next(self, max_batch: int) -> Work | None:
        if self._pictures and self._is_picture_due():
            return self._pop_picture()
        batch = self._next_batch(max_batch)
        if batch:
            return batch
        return self._pop_picture() if self._pictures else None

    def _is_picture_due(self) -> bool:
        since_s = max(self._pictures[0].asked_s, self._last_picture_s)
        return time.perf_counter() - since_s >= PICTURE_PATIENCE_S

    def _pop_picture(self) -> Request:
        self._last_picture_s = time.perf_counter()
        return self._pictures.popleft()

    def _next_batch(self, max_batch: int) -> list[Share]:
        batch: list[Share] = []
        for _ in range(len(self._feeds)):
            if len(batch) == max_batch:
                break
            feed = self._feeds[0]
            self._feeds.rotate(-1)
            arrived = feed.inbox.take()
            if arrived is not None:
                batch.append(Share(feed, arrived, feed.controls))
        return batch
