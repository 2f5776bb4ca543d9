"""Renderer: the life of one engine, in one thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future

from pipeline.engines import Engine
from pipeline.errors import EngineError, PipelineError, PromptError
from stream import frames
from stream.controls import Controls
from stream.errors import EngineNotReady
from stream.feed import Feed, Finished
from stream.stats import Metrics
from stream.status import EngineInfo, EngineState, EngineStatus
from stream.turns import Request, Share, Turns

logger = logging.getLogger(__name__)

EngineFactory = Callable[[], Engine]

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
# An engine that has lived this long before it failed is built again at once.
STEADY_S = 60.0


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
    ) -> None:
        self._factory = factory
        self._turns = turns
        self._metrics = metrics
        self._post = post
        self._report = report
        self._pause_s = 0.0

    def run(self, built: Future[None]) -> None:
        """Live one engine's life; ``built`` learns how its beginning went."""
        try:
            self._run(built)
        except Exception:
            logger.exception("the engine's thread ended")
            self._report(EngineStatus(EngineState.FAILED, "the model failed unexpectedly"))
            self._turns.refuse_waiting("the model failed unexpectedly")
        finally:
            self._turns.release(self)

    def _run(self, built: Future[None]) -> None:
        try:
            engine: Engine | None = self._build()
        except PipelineError as error:
            if not self._turns.is_held():
                self._report(EngineStatus(EngineState.FAILED, str(error)))
                self._turns.refuse_waiting(str(error))
            built.set_exception(error)
            return
        assert engine is not None
        if not self._turns.claim(self):
            engine.close()
            built.set_exception(EngineNotReady("the server is stopping"))
            return
        self._report_ready(engine)
        built.set_result(None)
        while engine is not None:
            engine = self._live(engine)

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
        self._report(EngineStatus(EngineState.READY, "the model is ready", info))

    def _live(self, engine: Engine) -> Engine | None:
        """Work until the engine has to leave or fails; return the next one, if any."""
        started_s = time.perf_counter()
        try:
            while (work := self._turns.take(engine.max_batch)) is not None:
                if isinstance(work, Request):
                    self._answer(engine, work)
                else:
                    self._render(engine, work)
        except EngineError as error:
            if time.perf_counter() - started_s >= STEADY_S:
                self._pause_s = 0.0
            return self._rebuild(engine, error)
        engine.close()
        return None

    def _rebuild(self, engine: Engine, error: EngineError) -> Engine | None:
        """Replace a failed engine, with growing pauses; None when it has to leave."""
        detail = f"the model failed and is loaded again: {error}"
        logger.error("engine %s failed: %s", engine.name, error)
        self._report(EngineStatus(EngineState.LOADING, detail, EngineInfo.of(engine)))
        self._turns.refuse_waiting(detail)
        engine.close()
        while self._turns.pause(self._pause_s):
            self._pause_s = min(max(FIRST_PAUSE_S, self._pause_s * 2), LONGEST_PAUSE_S)
            try:
                fresh = self._build()
            except PipelineError as failure:
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
        try:
            self._translate(engine, batch)
        except EngineError as error:
            self._hand_back(batch, error)
            raise
        except Exception as error:
            # One session's frame may upset the engine; the other sessions must go on.
            logger.exception("a batch of %d failed", len(batch))
            self._hand_back(batch, error)

    def _translate(self, engine: Engine, batch: list[Share]) -> None:
        started_s = time.perf_counter()
        for share in batch:
            self._dress(engine, share.feed, share.controls)
        shares = [share.feed.to_job(engine, share.arrived, share.controls) for share in batch]
        prepared_s = time.perf_counter()
        images = engine.translate([job for job, _ in shares])
        translated_s = time.perf_counter()
        self._metrics.batch.observe(len(batch))
        for share, (_, placement), image in zip(batch, shares, images, strict=True):
            frame = frames.to_frame(image, placement, share.arrived.frame, engine.pixel_format)
            if share.controls.marks:
                frames.carry_marks(frame, share.arrived.frame)
            stages_ms = {
                "wait": (started_s - share.arrived.arrived_s) * 1000,
                "prepare": (prepared_s - started_s) * 1000,
                "translate": (translated_s - prepared_s) * 1000,
                "finish": (time.perf_counter() - translated_s) * 1000,
            }
            share.feed.is_failing = False
            finished = Finished(share.arrived, frame, True, stages_ms)
            self._post(share.feed.owner.deliver, finished)

    def _hand_back(self, batch: list[Share], error: Exception) -> None:
        self._metrics.engine_failures.inc()
        for share in batch:
            feed, arrived = share.feed, share.arrived
            frame = frames.to_camera_frame(arrived.frame)
            feed.has_gap = True
            self._post(feed.owner.deliver, Finished(arrived, frame, False))
            if not feed.is_failing:
                feed.is_failing = True
                detail = f"the model failed, so you see the camera's picture: {error}"
                self._post(feed.owner.notice, "warning", detail)

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
            self._post(feed.owner.notice, "warning", str(error))
            used = look.used if look is not None else EngineInfo.of(engine).default_prompt
            goal = engine.encode_prompt(used)
        feed.set_look(engine, (asked, used), goal, controls.transition_s)
        if used != asked:
            self._post(feed.owner.prompt_replaced, asked, used)
