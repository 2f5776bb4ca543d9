"""Renderer: the life of one engine, in one thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from av import VideoFrame

from pipeline.engines import Engine, Job, Size
from pipeline.errors import EngineError, PipelineError, PromptError
from stream import frames
from stream.capacity import StepTimes
from stream.controls import Controls
from stream.errors import EngineNotReady
from stream.feed import Feed, Finished
from stream.region import BOTH
from stream.stats import Metrics
from stream.status import EngineInfo, EngineState, EngineStatus
from stream.turns import Request, Share, Turns

logger = logging.getLogger(__name__)

EngineFactory = Callable[[], Engine]
"""Builds an engine, in the engine's thread."""
Progress = Callable[[str, float | None], None]
"""Told what is being done, in a few words, and the share of it in [0, 1]; None: not known."""


class ModelFactory(Protocol):
    """Builds an engine for a model by name."""

    def __call__(self, model: str, size: Size | None, on_progress: Progress = ..., /) -> Engine:
        """Build it, in the engine's thread.

        Args:
            model: its name.
            size: None for the model's own.
            on_progress: told how far it is.
        """


FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
# An engine that has lived this long before it failed is built again at once.
STEADY_S = 60.0
# An engine that fails so often without saying that it is at its end, as for want of memory, is.
MOST_FAILED_BATCHES = 5


class Renderer:
    """Builds an engine, takes the turns over, renders until it has to leave.

    Everything after the constructor runs in one thread. ``post`` calls back on the event
    loop; ``report`` may be called from here.
    """

    def __init__(
        self,
        factory: EngineFactory,
        turns: Turns,
        metrics: Metrics,
        post: Callable[..., None],
        report: Callable[[EngineStatus], None],
        steps: StepTimes,
    ) -> None:
        self._factory = factory
        self._turns = turns
        self._metrics = metrics
        self._post = post
        self._report = report
        self._steps = steps
        self._pause_s = 0.0
        # One after the other, of the engine at work.
        self._failed_batches = 0
        self.is_beginning = True
        """Whether the engine is still being built, or waits to take over."""

    def run(self, built: Future[None]) -> None:
        """Live one engine's life.

        Args:
            built: learns how its beginning went; cancelled before the engine is built, the
                engine is closed and never takes over.
        """
        try:
            self._run(built)
        except Exception:
            logger.exception("the engine's thread ended")
            self._fail("the model failed unexpectedly")
        finally:
            self.is_beginning = False
            self._turns.release(self)

    def _run(self, built: Future[None]) -> None:
        engine = self._begin(built)
        while engine is not None:
            engine = self._live(engine)

    def _begin(self, built: Future[None]) -> Engine | None:
        """Build the engine and take the turns over; None if it came to nothing."""
        try:
            engine = self._build()
        except PipelineError as error:
            self._fail(str(error))
            self.is_beginning = False
            if built.set_running_or_notify_cancel():
                built.set_exception(error)
            return None
        self._read_prompts(engine)
        # From here on nobody can cancel it.
        if not built.set_running_or_notify_cancel():
            self._close(engine)
            return None
        is_ours = self._turns.claim(self)
        self.is_beginning = False
        if not is_ours:
            self._close(engine)
            built.set_exception(EngineNotReady("the server is stopping"))
            return None
        self._report_ready(engine)
        built.set_result(None)
        return engine

    def _read_prompts(self, engine: Engine) -> None:
        """Encode what sessions ask for before the engine takes over; it keeps that by text.

        A text encoder takes as long as several frames, and those still come from another engine.
        """
        for prompt in {feed.controls.prompt for feed in self._turns.feeds()}:
            try:
                engine.encode_prompt(prompt or EngineInfo.of(engine).default_prompt)
            except Exception as error:
                # What is wrong with it is told when a frame of its session is due.
                logger.info("a prompt was not encoded beforehand: %s", error)

    def _fail(self, detail: str) -> None:
        """Tell that there is no model, unless another engine is at work."""
        logger.error("no engine: %s", detail)
        if not self._turns.is_held(besides=self):
            self._report(EngineStatus(EngineState.FAILED, detail))
            self._turns.refuse_waiting(detail)

    def _close(self, engine: Engine) -> None:
        try:
            engine.close()
        except Exception:
            # It is given up in any case; the next one must get its turn.
            logger.exception("engine %s was not closed cleanly", engine.name)

    def _build(self) -> Engine:
        """Call the factory.

        Raises:
            PipelineError: it raised this, or anything else.
        """
        started_s = time.perf_counter()
        try:
            engine = self._factory()
        except PipelineError:
            self._metrics.engine_loads.labels("failed").inc()
            raise
        except Exception as error:
            # A factory imports torch, reads files and compiles: whatever that raises must
            # become a state that the page can show.
            logger.exception("the engine could not be built")
            self._metrics.engine_loads.labels("failed").inc()
            raise EngineError(f"the model could not be loaded: {error!r}") from error
        self._metrics.engine_loads.labels("loaded").inc()
        logger.info(
            "engine %s on %s: %s at %s, loaded in %.1f s",
            engine.name,
            engine.device,
            engine.model,
            engine.size,
            time.perf_counter() - started_s,
        )
        return engine

    def _report_ready(self, engine: Engine) -> None:
        info = EngineInfo.of(engine)
        ready = EngineStatus(EngineState.READY, "the model is ready", info, engine.encode_prompt)
        self._report(ready)

    def _live(self, engine: Engine) -> Engine | None:
        """Work until the engine has to leave or fails; return the next one, if any."""
        started_s = time.perf_counter()
        told = engine.device
        try:
            while (work := self._turns.take(engine.max_batch)) is not None:
                if isinstance(work, Request):
                    self._answer(engine, work)
                else:
                    self._render(engine, work)
                if engine.device != told:
                    # It goes on with less than it began with, such as without a CUDA graph.
                    told = engine.device
                    self._report_ready(engine)
                    for feed in self._turns.feeds():
                        detail = f"the model goes on with less: {told}"
                        self._post(feed.owner.notice, "warning", detail)
        except EngineError as error:
            if time.perf_counter() - started_s >= STEADY_S:
                self._pause_s = 0.0
            why = str(error)
        except Exception as error:
            # Whatever is wrong in here, sessions are owed an engine.
            logger.exception("engine %s: its work was cut short", engine.name)
            why = f"unexpectedly: {error!r}"
        else:
            self._close(engine)
            return None
        # Not in an except block: the error holds what the model had in hand, and after a want of
        # memory the next engine needs that room.
        return self._rebuild(engine, why)

    def _rebuild(self, engine: Engine, why: str) -> Engine | None:
        """Replace a failed engine, with growing pauses; None when it has to leave."""
        detail = f"the model failed and is loaded again: {why}"
        logger.error("engine %s failed: %s", engine.name, why)
        self._report(EngineStatus(EngineState.LOADING, detail, EngineInfo.of(engine)))
        self._turns.refuse_waiting(detail)
        self._close(engine)
        self._failed_batches = 0
        while self._turns.pause(self._pause_s):
            self._pause_s = min(max(FIRST_PAUSE_S, self._pause_s * 2), LONGEST_PAUSE_S)
            try:
                fresh = self._build()
            except PipelineError as failure:
                logger.error("no engine: %s", failure)
                self._report(EngineStatus(EngineState.FAILED, str(failure)))
                continue
            self._report_ready(fresh)
            return fresh
        return None

    def _answer(self, engine: Engine, request: Request) -> None:
        """Run one request; what it raises goes to whoever asked."""
        if not request.answer.set_running_or_notify_cancel():
            return
        try:
            result = request.call(engine)
        except EngineError as error:
            request.answer.set_exception(error)
            raise
        except Exception as error:
            # Not lost: it is raised again where the answer is awaited.
            request.answer.set_exception(error)
        else:
            request.answer.set_result(result)

    def _render(self, engine: Engine, batch: list[Share]) -> None:
        """Translate a batch and hand it back; on failure hand back the camera's frames."""
        started_s = time.perf_counter()
        ready = self._prepare(engine, batch)
        if not ready:
            return
        prepared_s = time.perf_counter()
        shares = [share for share, _, _ in ready]
        try:
            images = engine.translate([job for _, job, _ in ready])
        except EngineError as error:
            self._hand_back(shares, error)
            raise
        except Exception as error:
            # The engine may be upset by one batch and well with the next; not by all of them.
            logger.exception("a batch of %d failed", len(shares))
            self._hand_back(shares, error)
            self._failed_batches += 1
            if self._failed_batches == MOST_FAILED_BATCHES:
                raise EngineError(
                    f"{MOST_FAILED_BATCHES} batches failed, one after the other: {error!r}"
                ) from error
            return
        self._failed_batches = 0
        translated_s = time.perf_counter()
        self._metrics.batch.observe(len(shares))
        for (share, _, placement), image in zip(ready, images, strict=True):
            stages_ms = {
                "wait": (started_s - share.arrived.arrived_s) * 1000,
                "prepare": (prepared_s - started_s) * 1000,
                "translate": (translated_s - prepared_s) * 1000,
            }
            try:
                frame = frames.to_frame(image, placement, share.arrived.frame, engine.pixel_format)
                if share.controls.region != BOTH:
                    blended_s = time.perf_counter()
                    self._blend(share, frame)
                    stages_ms["mask"] = (time.perf_counter() - blended_s) * 1000
                if share.controls.marks:
                    frames.carry_marks(frame, share.arrived.frame)
                if share.feed.guard is not None:
                    frame = share.feed.guard.cover(frame)
            except Exception as error:
                logger.exception("a frame could not be finished")
                self._hand_back([share], error)
                continue
            stages_ms["finish"] = (time.perf_counter() - translated_s) * 1000
            share.feed.is_failing = False
            self._post(share.feed.owner.deliver, Finished(share.arrived, frame, True, stages_ms))
        busy_s = time.perf_counter() - started_s
        self._steps.note(engine.model, engine.size, len(shares), busy_s)

    @staticmethod
    def _blend(share: Share, frame: VideoFrame) -> None:
        """Put the camera back in a translation where it is not wanted."""
        assert share.feed.blender is not None, "it is made before the controls ask for it"
        share.feed.blender.blend(frame, share.arrived.frame, share.controls.region)

    def _prepare(
        self, engine: Engine, batch: list[Share]
    ) -> list[tuple[Share, Job, frames.Placement]]:
        """Make a batch's jobs; a frame of which none can be made is handed back.

        Raises:
            EngineError: the engine itself failed, and the whole batch was handed back.
        """
        ready: list[tuple[Share, Job, frames.Placement]] = []
        odd: list[tuple[Share, Exception]] = []
        try:
            for share in batch:
                try:
                    self._dress(engine, share.feed, share.controls)
                    job = share.feed.to_job(engine, share.arrived, share.controls)
                    ready.append((share, *job))
                except EngineError:
                    raise
                except Exception as error:
                    # One session's odd frame must not cost the others theirs.
                    logger.exception("a frame could not be prepared")
                    odd.append((share, error))
        except EngineError as error:
            self._hand_back(batch, error)
            raise
        for share, cause in odd:
            self._hand_back([share], cause)
        return ready

    def _hand_back(self, batch: list[Share], error: Exception) -> None:
        """Give the camera's own frames back, and tell each session once."""
        self._metrics.engine_failures.inc()
        for share in batch:
            feed, arrived = share.feed, share.arrived
            feed.has_gap = True
            if not feed.is_failing:
                feed.is_failing = True
                detail = f"the model failed, so you see the camera's picture: {error}"
                self._post(feed.owner.notice, "warning", detail)
            try:
                frame = frames.to_camera_frame(arrived.frame)
                if feed.guard is not None:
                    frame = feed.guard.cover(frame)
            except Exception:
                # Not even that: the picture before stays, and the next batch is served.
                logger.exception("a frame could not be handed back")
                continue
            self._post(feed.owner.deliver, Finished(arrived, frame, False))

    def _dress(self, engine: Engine, feed: Feed, controls: Controls) -> None:
        """Bring a feed's look to its prompt; an unknown one leaves the old look."""
        look = feed.look(engine)
        asked = controls.prompt
        if look is not None and asked in (look.asked, look.used):
            return
        used = asked or EngineInfo.of(engine).default_prompt
        try:
            goal = engine.encode_prompt(used)
        except PromptError as error:
            used = look.used if look is not None else EngineInfo.of(engine).default_prompt
            self._post(feed.owner.notice, "warning", f"{error}; you see {used}")
            goal = engine.encode_prompt(used)
        feed.set_look(engine, (asked, used), goal, controls.transition_s)
        if look is None:
            self._post(feed.owner.engine_changed)
        if used != asked:
            self._post(feed.owner.prompt_replaced, asked, used)
