"""EngineThread: the only way to the engine; fair turns for all sessions."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from av import VideoFrame

from pipeline.engines import Engine, Job
from pipeline.errors import EngineError, PromptError
from stream import frames
from stream.capacity import StepTimes
from stream.controls import Controls
from stream.delay_target import Concession
from stream.errors import ControlRefused, EngineNotReady, ServerFull
from stream.feed import ArrivedFrame, Feed
from stream.prompts import PromptThread
from stream.renderer import EngineFactory, Renderer
from stream.stats import Metrics
from stream.status import EngineInfo, EngineState, EngineStatus
from stream.turns import Turns

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Who opens a session or turns a knob waits no longer for a text encoder that hangs.
PROMPT_PATIENCE_S = 5.0


class EngineThread:
    """Runs one engine for every session; used on the event loop.

    An engine is built, used and closed in a thread of its own. :meth:`swap` starts a second
    thread, which takes over between two batches once its engine is built, so one engine works
    at a time. While there is no ready engine, sessions send the camera's own frames.
    """

    def __init__(self, factory: EngineFactory, metrics: Metrics) -> None:
        self._factory = factory
        self._metrics = metrics
        self.steps = StepTimes()
        """What batches take."""
        self._status = EngineStatus(EngineState.LOADING, "the model is loading")
        self._turns = Turns()
        self._prompts = PromptThread()
        self._threads: list[threading.Thread] = []
        self._newest: Renderer | None = None
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.concession: Concession | None = None
        """What the model does less, for the delay's sake; None: it does all it can."""

    @property
    def is_swapping(self) -> bool:
        """Whether another engine is being built beside this one."""
        return self._newest is not None and self._newest.is_beginning

    @property
    def status(self) -> EngineStatus:
        """The present state."""
        return self._status

    def start(self) -> None:
        """Begin to load the engine."""
        self._loop = asyncio.get_running_loop()
        self._prompts.start()
        # A failure to load is told by `status`, which everybody reads.
        self._launch(self._factory)

    async def loaded(self) -> EngineStatus:
        """Wait until the engine is built, could not be, or is closed; return the state."""
        while self._status.state is EngineState.LOADING:
            await self._wait_for_news()
        return self._status

    async def changed(self, seen: EngineStatus | None) -> EngineStatus:
        """Wait until the state is another than ``seen``; return it."""
        while self._status is seen:
            await self._wait_for_news()
        return self._status

    async def settled(self) -> None:
        """Wait until no other engine is being built beside this one."""
        while self.is_swapping:
            await self._wait_for_news()

    async def _wait_for_news(self) -> None:
        # A state is reported before it is posted: no news is missed in between.
        self._news.clear()
        await self._news.wait()

    async def swap(self, factory: EngineFactory) -> None:
        """Build another engine beside this one, then let it take over between two batches.

        Cancelled while the engine is being built, it is closed as soon as it is built.

        Raises:
            PipelineError: it could not be built; the old engine goes on.
            ServerFull: another model is being loaded.
        """
        if self.is_swapping or self._status.state is EngineState.LOADING:
            raise ServerFull("another model is being loaded; try again when it is ready")
        await asyncio.wrap_future(self._launch(factory))

    def attach(self, feed: Feed) -> None:
        """Give a session a place in the turns."""
        self._turns.attach(feed)

    def detach(self, feed: Feed) -> None:
        """Take its place away; a frame in the engine is still delivered."""
        self._turns.detach(feed)

    def submit(self, feed: Feed, arrived: ArrivedFrame) -> bool:
        """Leave a frame for the engine; it replaces one that still waits.

        Of a frame that the model is spared nothing comes back.

        Returns:
            False if the frame goes past the engine: the session sends it as it is.
        """
        if feed.controls.bypass or not self._status.is_ready:
            self._turns.withdraw(feed)
            return False
        if self.concession is not None and not self.concession.effort.takes(arrived.number):
            feed.spared += 1
            return True
        self._turns.submit(feed, arrived)
        return True

    def withdraw(self, feed: Feed) -> None:
        """Take back a frame that still waits; the next one does not continue it."""
        self._turns.withdraw(feed)

    async def check_prompt(self, prompt: str) -> None:
        """Have a prompt encoded beside the frames, so that its first frame finds it cached.

        Does nothing for an empty prompt, and while there is no ready engine: the prompt is
        then checked when there is one. So it is if it is not encoded within 5 s.

        Raises:
            ControlRefused: the model does not know the words.
            EngineNotReady: the engine failed meanwhile.
            ServerFull: too many such questions wait.
        """
        encode = self._status.encode_prompt
        if not prompt or encode is None:
            return
        try:
            async with asyncio.timeout(PROMPT_PATIENCE_S):
                await self._prompts.encode(encode, prompt)
        except TimeoutError:
            logger.warning("a prompt was not encoded within %g s", PROMPT_PATIENCE_S)
        except PromptError as error:
            raise ControlRefused(str(error)) from error
        except EngineError as error:
            raise EngineNotReady(str(error)) from error

    async def translate_picture(
        self,
        picture: VideoFrame,
        controls: Controls,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> VideoFrame:
        """Translate one picture when no live frame waits.

        Args:
            picture: of any size and pixel format.
            controls: what to make of it.
            is_wanted: asked in the engine's thread when it is the picture's turn.

        Returns:
            The picture at the size at which it lies in the engine's image.

        Raises:
            ControlRefused: the model does not know the words.
            EngineNotReady: there is no engine, it failed on this picture, or nobody wants it.
            ServerFull: too many pictures wait.
        """

        def translate(engine: Engine) -> VideoFrame:
            if not is_wanted():
                raise EngineNotReady("whoever asked for the picture has gone")
            words = controls.prompt or EngineInfo.of(engine).default_prompt
            conditioning = engine.encode_prompt(words)
            image, placement = frames.to_image(picture, engine.size, engine.pixel_format)
            (result,) = engine.translate([Job(image, conditioning, controls.settings_for(engine))])
            return frames.to_content(result, placement, engine.pixel_format)

        await self.check_prompt(controls.prompt)
        return await self.when_idle(translate)

    async def when_idle(self, call: Callable[[Engine], T]) -> T:
        """Have ``call`` run in the engine's thread when no live frame waits.

        Raises:
            ControlRefused: the model does not know the words.
            EngineNotReady: there is no engine, or it failed.
            ServerFull: too many such calls wait.
        """
        if not self._status.is_ready:
            raise EngineNotReady(self._status.detail)
        try:
            return await asyncio.wrap_future(self._turns.ask_patiently(call))
        except PromptError as error:
            raise ControlRefused(str(error)) from error
        except EngineError as error:
            raise EngineNotReady(str(error)) from error

    async def close(self, deadline_s: float = 10.0) -> None:
        """Stop after the batch at work and free the engine. Calling it again does nothing."""
        self._turns.close()
        until_s = time.perf_counter() + deadline_s
        while self._threads:
            thread = self._threads.pop()
            await asyncio.to_thread(thread.join, max(0.0, until_s - time.perf_counter()))
            if thread.is_alive():
                logger.error("the engine did not stop within %g s", deadline_s)
        await self._prompts.close(max(0.0, until_s - time.perf_counter()))
        self._status = EngineStatus(EngineState.CLOSED, "the server is stopping")
        self._news.set()

    def _launch(self, factory: EngineFactory) -> Future[None]:
        renderer = Renderer(
            factory, self._turns, self._metrics, self._post, self._report, self.steps
        )
        self._newest = renderer
        built: Future[None] = Future()
        built.add_done_callback(lambda _: self._post(self._news.set))
        # A daemon: an engine that hangs must not keep the process from ending.
        thread = threading.Thread(target=renderer.run, args=(built,), name="engine", daemon=True)
        self._threads = [*(old for old in self._threads if old.is_alive()), thread]
        thread.start()
        return built

    # Called in the engine's thread.

    def _report(self, status: EngineStatus) -> None:
        self._status = status
        self._post(self._news.set)

    def _post(self, callback: Callable[..., None], *args: object) -> None:
        assert self._loop is not None, "start() comes first"
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            logger.debug("a result came after the event loop was closed")
