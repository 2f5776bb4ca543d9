"""What a safety checker lets be shown: it looks on beside the stream, which never waits for it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from enum import Enum

import numpy as np
from av import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from pipeline.errors import CheckpointError, PipelineError
from pipeline.safety import CheckerFactory, SafetyChecker
from stream import frames
from stream.blur import blur
from stream.errors import EngineNotReady, ServerFull
from stream.niceness import give_way
from stream.stats import Metrics

logger = logging.getLogger(__name__)

MAX_PICTURES = 64
_NICENESS = 10
UNFIT = "the safety checker finds the picture unfit to be shown, so it is blurred"


class Verdict(Enum):
    """What is known of a session's pictures."""

    UNCHECKED = "unchecked"
    FIT = "fit"
    UNFIT = "unfit"


class Guard:
    """Blurs one session's pictures until the last that was looked at was found fit.

    A picture is looked at while it is on its way. So what is unfit is seen until the round of
    checks after it is over: one for each session, and the one that is under way.
    """

    def __init__(self, thread: SafetyThread, notice: Callable[[str, str], None]) -> None:
        """Make one that blurs everything.

        Args:
            thread: looks at the pictures.
            notice: takes a level and a sentence for the viewer, on the event loop.
        """
        self._thread = thread
        self._notice = notice
        self.verdict = Verdict.UNCHECKED
        """Written in the checker's thread."""
        self.newest: VideoFrame | None = None
        """The checker's, under the lock of its thread."""

    @property
    def why_blurred(self) -> str | None:
        """The verdict by which pictures are blurred now, in a word; None: they are not."""
        return None if self.verdict is Verdict.FIT else self.verdict.value

    def cover(self, frame: VideoFrame) -> VideoFrame:
        """Have a frame looked at, and return what may be sent in its place now. In any thread.

        Args:
            frame: ``yuv420p``, ready to be sent; it is read for a while after this.
        """
        self._thread.submit(self, frame)
        return self.veil(frame)

    def veil(self, frame: VideoFrame) -> VideoFrame:
        """Return what may be sent now in place of a frame that was looked at before."""
        if self.verdict is Verdict.FIT:
            return frame
        blurred = frames.copy_frame(frame, frame)
        blur(blurred)
        return blurred

    def judge(self, is_unfit: bool) -> None:
        """Take a verdict, in the checker's thread."""
        before, self.verdict = self.verdict, Verdict.UNFIT if is_unfit else Verdict.FIT
        if is_unfit and before is not Verdict.UNFIT:
            self._thread.post(self._notice, "warning", UNFIT)


class SafetyThread:
    """Runs one checker for every session, in a thread of its own; used on the event loop.

    Each session has a place for one frame: a newer one replaces it, so the checker always sees
    the newest, and nobody waits for it. Single pictures have a bounded lane and take turns
    with the sessions.
    """

    def __init__(self, load: CheckerFactory, metrics: Metrics) -> None:
        self._load = load
        self._metrics = metrics
        self._changed = threading.Condition()
        self._guards: deque[Guard] = deque()
        self._pictures: deque[tuple[VideoFrame, Future[bool]]] = deque()
        self._is_pictures_turn = False
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Load the checker.

        Raises:
            PipelineError: it cannot be loaded; without it nothing may be shown.
        """
        self._loop = asyncio.get_running_loop()
        loaded: Future[None] = Future()
        # A daemon: a checker that hangs must not keep the process from ending.
        self._thread = threading.Thread(
            target=self._run, args=(loaded,), name="safety", daemon=True
        )
        self._thread.start()
        await asyncio.wrap_future(loaded)

    def attach(self, guard: Guard) -> None:
        """Give a session a place in the turns."""
        with self._changed:
            self._guards.append(guard)

    def detach(self, guard: Guard) -> None:
        """Take its place away."""
        with self._changed:
            if guard in self._guards:
                self._guards.remove(guard)

    def submit(self, guard: Guard, frame: VideoFrame) -> None:
        """Leave a frame to be looked at; it replaces one that still waits. In any thread."""
        with self._changed:
            guard.newest = frame
            self._changed.notify_all()

    async def is_unfit(self, picture: VideoFrame) -> bool:
        """Have a single picture looked at, and wait for it.

        Raises:
            ServerFull: too many wait.
            EngineNotReady: the server stops.
        """
        answer: Future[bool] = Future()
        with self._changed:
            if self._is_closed:
                raise EngineNotReady("the server is stopping")
            if len(self._pictures) >= MAX_PICTURES:
                raise ServerFull(f"{MAX_PICTURES} pictures wait for the safety checker already", 1)
            self._pictures.append((picture, answer))
            self._changed.notify_all()
        return await asyncio.wrap_future(answer)

    async def close(self, deadline_s: float = 5.0) -> None:
        """Stop after the check at work. Calling it again does nothing."""
        with self._changed:
            self._is_closed = True
            waiting = [answer for _, answer in self._pictures]
            self._pictures.clear()
            self._changed.notify_all()
        for answer in waiting:
            if answer.set_running_or_notify_cancel():
                answer.set_exception(EngineNotReady("the server is stopping"))
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, deadline_s)
            if self._thread.is_alive():
                logger.error("the safety checker did not stop within %g s", deadline_s)

    # In the checker's thread.

    def post(self, callback: Callable[..., None], *args: object) -> None:
        """Call back on the event loop."""
        assert self._loop is not None, "start() comes first"
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            logger.debug("a verdict came after the event loop was closed")

    def _run(self, loaded: Future[None]) -> None:
        give_way(_NICENESS)
        try:
            checker = self._load()
        except PipelineError as error:
            loaded.set_exception(error)
            return
        except Exception as error:
            logger.exception("the safety checker could not be loaded")
            loaded.set_exception(
                CheckpointError(f"the safety checker could not be loaded: {error!r}")
            )
            return
        loaded.set_result(None)
        reformatter = VideoReformatter()
        while (work := self._take()) is not None:
            frame, answer = work
            is_unfit = self._look(checker, reformatter, frame)
            self._metrics.safety_checks.labels("unfit" if is_unfit else "fit").inc()
            if isinstance(answer, Guard):
                answer.judge(is_unfit)
            elif answer.set_running_or_notify_cancel():
                answer.set_result(is_unfit)
        checker.close()

    def _look(
        self, checker: SafetyChecker, reformatter: VideoReformatter, frame: VideoFrame
    ) -> bool:
        """Return whether a frame is unfit; one that cannot be judged is."""
        try:
            # The frame's own reformatter may be at work in another thread.
            picture = reformatter.reformat(frame, format="rgb24").to_ndarray()
            image: NDArray[np.uint8] = picture.astype(np.uint8, copy=False)
            return checker.is_unfit(image)
        except Exception:
            logger.exception("the safety checker failed on a picture, which is not shown")
            return True

    def _take(self) -> tuple[VideoFrame, Guard | Future[bool]] | None:
        """Wait for something to look at; None when there will be nothing more."""
        with self._changed:
            while not self._is_closed:
                self._is_pictures_turn = not self._is_pictures_turn
                if self._pictures and self._is_pictures_turn:
                    return self._pictures.popleft()
                for _ in range(len(self._guards)):
                    guard = self._guards[0]
                    self._guards.rotate(-1)
                    frame, guard.newest = guard.newest, None
                    if frame is not None:
                        return frame, guard
                if self._pictures:
                    return self._pictures.popleft()
                self._changed.wait()
            return None
