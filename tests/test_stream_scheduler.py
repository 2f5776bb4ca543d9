"""The engine's thread, without a network."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from av import VideoFrame
from engines import (
    TRANSFORMS,
    ColourEngine,
    FailingEngine,
    GatedEngine,
    ReadingEngine,
    transform,
)

from pipeline.engines import Image, Job, Size
from pipeline.errors import CheckpointError, EngineError
from stream import frames, heap, renderer
from stream.controls import Controls
from stream.errors import ControlRefused, EngineNotReady, ServerFull
from stream.feed import ArrivedFrame, Feed, Finished
from stream.renderer import MOST_FAILED_BATCHES, EngineFactory
from stream.scheduler import EngineThread
from stream.stats import Metrics
from stream.status import EngineState

COLOUR = (200, 120, 40)


class Owner:
    """Keeps what its feed gets."""

    def __init__(self, engine: EngineThread, controls: Controls) -> None:
        self.engine = engine
        self.feed = Feed(self, controls)
        self.finished: asyncio.Queue[Finished] = asyncio.Queue(100)
        self.notices: list[str] = []
        self.replaced: list[tuple[str, str]] = []
        self.engines = 0
        self.number = 0
        engine.attach(self.feed)

    def deliver(self, finished: Finished) -> None:
        self.finished.put_nowait(finished)

    def notice(self, level: str, detail: str) -> None:
        self.notices.append(detail)

    def prompt_replaced(self, asked: str, used: str) -> None:
        self.replaced.append((asked, used))

    def engine_changed(self) -> None:
        self.engines += 1

    def submit(self, size: tuple[int, int] = (64, 48)) -> bool:
        image = np.full((size[1], size[0], 3), COLOUR, np.uint8)
        frame = VideoFrame.from_numpy_buffer(image, "rgb24")
        frame.pts, frame.time_base = 3000 * self.number, Fraction(1, 90000)
        self.number += 1
        return self.engine.submit(self.feed, ArrivedFrame(frame, self.number, time.perf_counter()))

    async def next(self) -> Finished:
        async with asyncio.timeout(10):
            return await self.finished.get()

    async def render(self) -> np.ndarray:
        """Send one frame through the engine and return its colour."""
        assert self.submit()
        return colour_of((await self.next()).frame)


def colour_of(frame: VideoFrame) -> np.ndarray:
    return frame.reformat(format="rgb24").to_ndarray()[24, 32].astype(int)


def close_to(colour: np.ndarray, prompt: str, strength: float = 1.0) -> bool:
    image = np.full((1, 1, 3), COLOUR, np.uint8)
    wanted = transform(image, TRANSFORMS[prompt], strength)[0, 0].astype(int)
    return bool(np.abs(colour - wanted).max() <= 6)


@asynccontextmanager
async def running(factory: EngineFactory) -> AsyncIterator[EngineThread]:
    engine = EngineThread(factory, Metrics())
    engine.start()
    try:
        await engine.loaded()
        yield engine
    finally:
        await engine.close()
        await engine.close()
        assert engine.status.state is EngineState.CLOSED
        assert not {"engine", "prompts"} & {thread.name for thread in threading.enumerate()}


async def test_engine_lives_in_one_thread() -> None:
    """An engine is built, used and closed in its own thread, not in the loop's."""
    built: list[ColourEngine] = []

    def build() -> ColourEngine:
        built.append(ColourEngine())
        return built[-1]

    async with running(build) as engine:
        owner = Owner(engine, Controls())
        assert close_to(await owner.render(), "invert")
        assert owner.replaced == [("", "invert")]
    assert built[0].is_closed
    assert built[0].thread != threading.get_ident()


async def test_sessions_share_a_batch_with_their_own_settings() -> None:
    """Frames that wait together are one batch; each has its own prompt and strength."""
    built: list[GatedEngine] = []

    def build() -> GatedEngine:
        built.append(GatedEngine())
        return built[-1]

    async with running(build) as engine:
        (gated,) = built
        owners = [
            Owner(engine, Controls(prompt, strength))
            for prompt, strength in (("invert", 1.0), ("swap", 0.5), ("grey", 0.2))
        ]
        owners[0].submit()
        assert await asyncio.to_thread(gated.entered.acquire, timeout=10)
        for owner in owners:
            owner.submit()
        gated.gate.release(2)
        await owners[0].next()
        for owner in owners:
            controls = owner.feed.controls
            colour = colour_of((await owner.next()).frame)
            assert close_to(colour, controls.prompt, controls.strength)
        assert gated.batches == [1, 3]


async def test_changes_apply_between_frames() -> None:
    """A change made while a frame is in the engine does not touch that frame."""
    built: list[GatedEngine] = []

    def build() -> GatedEngine:
        built.append(GatedEngine())
        return built[-1]

    async with running(build) as engine:
        (gated,) = built
        owner = Owner(engine, Controls("invert"))
        owner.submit()
        assert await asyncio.to_thread(gated.entered.acquire, timeout=10)
        owner.feed.controls = Controls("swap", 0.5, transition_s=0)
        owner.submit()
        gated.gate.release(2)
        assert close_to(colour_of((await owner.next()).frame), "invert", 1.0)
        assert close_to(colour_of((await owner.next()).frame), "swap", 0.5)


async def test_unknown_prompt_keeps_the_old_style() -> None:
    """Who asks for an unknown style is told; the old style stays on the frames."""
    async with running(ColourEngine) as engine:
        owner = Owner(engine, Controls("swap", transition_s=0))
        assert close_to(await owner.render(), "swap")
        with pytest.raises(ControlRefused, match="invert and swap"):
            await engine.check_prompt("cubism")
        owner.feed.controls = Controls("cubism", transition_s=0)
        assert close_to(await owner.render(), "swap")
        assert close_to(await owner.render(), "swap")
        assert owner.replaced == [("cubism", "swap")]
        assert len(owner.notices) == 1


async def test_model_that_cannot_be_loaded_is_told() -> None:
    """Without a model, the state says why, and frames go past the engine."""

    def broken() -> ColourEngine:
        raise CheckpointError("the weights are cut off")

    async with running(broken) as engine:
        assert engine.status.state is EngineState.FAILED
        assert engine.status.detail == "the weights are cut off"
        assert not Owner(engine, Controls()).submit()
        with pytest.raises(EngineNotReady, match="cut off"):
            await engine.translate_picture(VideoFrame(64, 48, "rgb24"), Controls())


async def test_model_that_cannot_be_loaded_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The reason is in the terminal too, however late it comes."""

    def load() -> ColourEngine:
        raise EngineError("the CUDA engine cannot run: no driver is installed")

    async with running(load) as engine:
        await engine.loaded()
    assert "no engine: the CUDA engine cannot run: no driver is installed" in caplog.messages


async def test_unexpected_error_while_loading_is_told() -> None:
    """Whatever a factory raises becomes a state, not a dead thread."""

    def broken() -> ColourEngine:
        raise MemoryError("no memory")

    async with running(broken) as engine:
        assert engine.status.state is EngineState.FAILED
        assert "no memory" in engine.status.detail


async def test_failed_engine_gives_the_camera_and_is_built_again() -> None:
    """After an EngineError the frame comes back as it was, and a new engine takes over."""
    built: list[ColourEngine] = []

    def build() -> ColourEngine:
        first = not built
        built.append(FailingEngine(lambda _: first))
        return built[-1]

    async with running(build) as engine:
        owner = Owner(engine, Controls("invert"))
        assert owner.submit()
        handed_back = await owner.next()
        assert not handed_back.is_translated
        assert np.abs(colour_of(handed_back.frame) - COLOUR).max() <= 6
        async with asyncio.timeout(10):
            while not owner.submit():
                await engine.loaded()
        assert close_to(colour_of((await owner.next()).frame), "invert")
        assert "bus" in owner.notices[0]
        assert [engine.is_closed for engine in built] == [True, False]


class Activations:
    """What a model has in hand while it works."""


async def test_engine_without_memory_is_built_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error for each batch ends the engine too, and what it had in hand is free by then."""
    # pytest keeps what is logged, and with it the errors.
    monkeypatch.setattr(renderer.logger, "disabled", True)
    built: list[ColourEngine] = []
    in_hand: list[weakref.ref[Activations]] = []
    left: list[int] = []

    class HungryEngine(ColourEngine):
        def translate(self, jobs: Sequence[Job]) -> list[Image]:
            activations = Activations()
            in_hand.append(weakref.ref(activations))
            raise MemoryError("no memory for the activations")

    def build() -> ColourEngine:
        left.append(sum(ref() is not None for ref in in_hand))
        built.append(ColourEngine() if built else HungryEngine())
        return built[-1]

    async with running(build) as engine:
        owner = Owner(engine, Controls("invert"))
        for _ in range(MOST_FAILED_BATCHES):
            assert owner.submit()
            assert not (await owner.next()).is_translated
        async with asyncio.timeout(10):
            while not owner.submit():
                await engine.loaded()
        assert close_to(colour_of((await owner.next()).frame), "invert")
        assert built[0].is_closed
        assert len(in_hand) == MOST_FAILED_BATCHES
        assert left == [0, 0]
        assert len(owner.notices) == 1
        assert "no memory for the activations" in owner.notices[0]


async def test_engine_that_goes_on_with_less_is_told() -> None:
    """When an engine decides anew about its device in service, status and viewers are told once."""

    class DroppingEngine(ColourEngine):
        def translate(self, jobs: Sequence[Job]) -> list[Image]:
            self.device = "test, no graphs (the graph of batch 1 failed)"
            return super().translate(jobs)

    async with running(DroppingEngine) as engine:
        owner = Owner(engine, Controls("invert"))
        assert engine.status.info is not None
        assert engine.status.info.device == "test"
        other = Owner(engine, Controls("invert"))
        await owner.render()
        await owner.render()
        now = "test, no graphs (the graph of batch 1 failed)"
        assert engine.status.info.device == now
        assert owner.notices == other.notices == [f"the model goes on with less: {now}"]


async def test_picture_is_translated_beside_the_stream() -> None:
    """One picture is translated at the size at which it lies in the engine's image."""
    async with running(lambda: ColourEngine(Size(64, 64))) as engine:
        picture = VideoFrame.from_numpy_buffer(np.full((90, 160, 3), COLOUR, np.uint8), "rgb24")
        result = await engine.translate_picture(picture, Controls("swap", 0.5))
        assert (result.width, result.height) == (64, 36)
        image = result.to_ndarray()
        assert np.abs(image.astype(int) - (120, 120, 120)).max() <= 6
        with pytest.raises(ControlRefused, match="cubism"):
            await engine.translate_picture(picture, Controls("cubism"))


async def test_picture_that_breaks_the_engine_is_answered() -> None:
    """An engine that fails on a picture is an error for who asked."""
    async with running(lambda: FailingEngine(lambda _: True, EngineError("no card"))) as engine:
        with pytest.raises(EngineNotReady, match="no card"):
            await engine.translate_picture(VideoFrame(64, 48, "rgb24"), Controls())


async def test_prompts_are_encoded_beside_the_frames() -> None:
    """While a prompt is encoded everybody's frames go on; then its first frame finds it known."""
    built: list[ReadingEngine] = []

    def build() -> ReadingEngine:
        built.append(ReadingEngine())
        built[-1].gate.release()  # for the first prompt
        return built[-1]

    async with running(build) as engine:
        (reading,) = built
        owner = Owner(engine, Controls("invert", transition_s=0))
        assert close_to(await owner.render(), "invert")
        assert reading.entered.acquire(timeout=10)
        asked = asyncio.create_task(engine.check_prompt("swap"))
        assert await asyncio.to_thread(reading.entered.acquire, timeout=10)
        for _ in range(5):
            assert close_to(await owner.render(), "invert")
        assert not asked.done()
        reading.gate.release()
        await asked
        owner.feed.controls = Controls("swap", transition_s=0)
        assert close_to(await owner.render(), "swap")


async def test_prompts_are_encoded_before_another_model_takes_over() -> None:
    """Frames come from the old model until the new one knows every prompt, and never wait."""
    built: asyncio.Queue[ReadingEngine] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def build() -> ReadingEngine:
        reading = ReadingEngine()
        loop.call_soon_threadsafe(built.put_nowait, reading)
        return reading

    async with running(ColourEngine) as engine:
        owner = Owner(engine, Controls("invert", transition_s=0))
        other = Owner(engine, Controls("swap", transition_s=0))
        await owner.render()
        await other.render()
        swap = asyncio.create_task(engine.swap(build))
        reading = await built.get()
        for _ in range(2):
            assert await asyncio.to_thread(reading.entered.acquire, timeout=10)
            for _ in range(3):
                assert close_to(await owner.render(), "invert")
                assert close_to(await other.render(), "swap")
            assert not swap.done()
            reading.gate.release()
        await swap
        assert close_to(await owner.render(), "invert")
        assert close_to(await other.render(), "swap")
        assert engine.status.info is not None
        assert owner.engines == other.engines == 2


async def test_prompt_that_another_model_does_not_know_does_not_keep_it_away() -> None:
    """It takes over all the same, and tells the session when it draws."""
    async with running(ColourEngine) as engine:
        owner = Owner(engine, Controls("cubism", transition_s=0))
        await engine.swap(ColourEngine)
        await owner.render()
        assert "cubism" in owner.notices[-1]


async def test_close_answers_who_waits() -> None:
    """A prompt that waits when everything is closed is answered, not forgotten."""
    built: list[ReadingEngine] = []

    def build() -> ReadingEngine:
        built.append(ReadingEngine())
        return built[-1]

    async with running(build) as engine:
        at_work = asyncio.create_task(engine.check_prompt("swap"))
        assert await asyncio.to_thread(built[0].entered.acquire, timeout=10)
        waiting = asyncio.create_task(engine.check_prompt("grey"))
        await asyncio.sleep(0)  # let it be asked
        closing = asyncio.create_task(engine.close())
        with pytest.raises(EngineNotReady, match="stopping"):
            await waiting
        built[0].gate.release()
        with pytest.raises(EngineNotReady, match="closed"):
            await at_work
        await closing


async def test_models_that_were_swapped_away_are_free() -> None:
    """However often the model changes, one is in memory, also where the collector passes by."""
    built: list[weakref.ref[ColourEngine]] = []

    def build() -> ColourEngine:
        engine = ColourEngine()
        built.append(weakref.ref(engine))
        return engine

    async with running(build) as engine:
        keeping = asyncio.create_task(heap.keep_frozen(engine))
        owner = Owner(engine, Controls("invert"))
        for _ in range(4):
            assert close_to(await owner.render(), "invert")
            before = engine._threads[-1]
            await engine.swap(build)
            await asyncio.to_thread(before.join, 10)
        assert close_to(await owner.render(), "invert")
        assert [ref() is not None for ref in built] == [False, False, False, False, True]
        keeping.cancel()
        await asyncio.wait([keeping])


async def test_cancelled_swap_leaves_the_old_engine_at_work() -> None:
    """Who gives a swap up leaves everything as it was: the new engine is closed when built."""
    gate, entered = threading.Event(), threading.Event()
    built: list[ColourEngine] = []

    def load() -> ColourEngine:
        entered.set()
        assert gate.wait(10)
        built.append(ColourEngine())
        return built[-1]

    async with running(ColourEngine) as engine:
        owner = Owner(engine, Controls("invert"))
        swap = asyncio.create_task(engine.swap(load))
        assert await asyncio.to_thread(entered.wait, 10)
        swap.cancel()
        with pytest.raises(asyncio.CancelledError):
            await swap
        with pytest.raises(ServerFull):
            await engine.swap(ColourEngine)
        given_up = engine._threads[-1]
        gate.set()
        await asyncio.to_thread(given_up.join, 10)
        assert built[0].is_closed
        assert engine.status.is_ready
        assert close_to(await owner.render(), "invert")
        await engine.swap(ColourEngine)
        assert close_to(await owner.render(), "invert")


async def test_cancelled_swap_whose_engine_fails_leaves_the_old_one() -> None:
    """A model that nobody waits for any more and that cannot be built changes nothing."""
    gate, entered = threading.Event(), threading.Event()

    def load() -> ColourEngine:
        entered.set()
        assert gate.wait(10)
        raise CheckpointError("the weights are cut off")

    async with running(ColourEngine) as engine:
        swap = asyncio.create_task(engine.swap(load))
        assert await asyncio.to_thread(entered.wait, 10)
        swap.cancel()
        with pytest.raises(asyncio.CancelledError):
            await swap
        given_up = engine._threads[-1]
        gate.set()
        await asyncio.to_thread(given_up.join, 10)
        assert engine.status.is_ready
        assert close_to(await Owner(engine, Controls("invert")).render(), "invert")


@pytest.mark.parametrize("step", ["to_image", "to_frame"])
async def test_odd_frame_costs_the_others_nothing(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame that fails before or after the model leaves the rest of its batch translated."""
    built: list[GatedEngine] = []
    work = getattr(frames, step)

    def build() -> GatedEngine:
        built.append(GatedEngine())
        return built[-1]

    def fail_on_odd(*arguments: Any) -> Any:
        if any(isinstance(each, VideoFrame) and each.width == 80 for each in arguments):
            raise OSError("no such size")
        return work(*arguments)

    monkeypatch.setattr(frames, step, fail_on_odd)
    async with running(build) as engine:
        (gated,) = built
        odd, good = Owner(engine, Controls("invert")), Owner(engine, Controls("swap"))
        good.submit()
        assert await asyncio.to_thread(gated.entered.acquire, timeout=10)
        odd.submit((80, 48))
        good.submit()
        gated.gate.release(2)
        for _ in range(2):
            finished = await good.next()
            assert finished.is_translated
            assert close_to(colour_of(finished.frame), "swap")
        assert not (await odd.next()).is_translated
        assert gated.batches == [1, 1 if step == "to_image" else 2]
        assert len(odd.notices) == 1
        assert not good.notices


async def test_frame_that_cannot_be_handed_back_does_not_end_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When the camera's own frame fails too, the same engine goes on with the next one."""
    failed = threading.Event()
    built: list[ColourEngine] = []

    def build() -> ColourEngine:
        built.append(FailingEngine(lambda call: call == 0, ValueError("odd")))
        return built[-1]

    def fail(_: VideoFrame) -> VideoFrame:
        failed.set()
        raise OSError("cannot be converted")

    monkeypatch.setattr(frames, "to_camera_frame", fail)
    async with running(build) as engine:
        owner = Owner(engine, Controls("invert"))
        assert owner.submit()
        assert await asyncio.to_thread(failed.wait, 10)
        assert close_to(await owner.render(), "invert")
        assert len(built) == 1


async def test_anything_raised_beside_the_engine_builds_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever ends the work of an engine's thread, the engine is closed and built again."""
    built: list[ColourEngine] = []

    def build() -> ColourEngine:
        built.append(ColourEngine())
        return built[-1]

    async with running(build) as engine:
        monkeypatch.setattr(engine._metrics.batch, "observe", lambda _: 1 / 0 * len(built))
        owner = Owner(engine, Controls("invert"))
        owner.submit()
        async with asyncio.timeout(10):
            while len(built) < 2 or not engine.status.is_ready:
                await engine.loaded()
        monkeypatch.undo()
        assert built[0].is_closed
        assert close_to(await owner.render(), "invert")


async def test_who_waits_for_a_model_learns_that_all_is_closed() -> None:
    """Closing while a model loads wakes who waits for it."""
    gate = threading.Event()

    def load() -> ColourEngine:
        assert gate.wait(10)
        return ColourEngine()

    engine = EngineThread(load, Metrics())
    engine.start()
    waiting = asyncio.create_task(engine.loaded())
    await asyncio.sleep(0)  # let it wait
    loading = engine._threads[-1]
    await engine.close(deadline_s=0.05)
    async with asyncio.timeout(5):
        assert (await waiting).state is EngineState.CLOSED
    gate.set()
    await asyncio.to_thread(loading.join, 10)
