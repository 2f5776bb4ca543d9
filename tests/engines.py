"""Small real engines: each prompt is a colour transform, so that its effect can be computed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.engines import Conditioning, Image, Job, PixelFormat, Size, Style
from pipeline.errors import EngineClosed, EngineError, PromptError

TRANSFORMS: dict[str, NDArray[np.float32]] = {
    # (3, 4): a matrix and an offset for RGB in [0, 255].
    "invert": np.array([[-1, 0, 0, 255], [0, -1, 0, 255], [0, 0, -1, 255]], np.float32),
    "swap": np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]], np.float32),
    "grey": np.array([[1 / 3, 1 / 3, 1 / 3, 0]] * 3, np.float32),
    "same": np.eye(3, 4, dtype=np.float32),
}


def transform(image: Image, tokens: NDArray[np.float32], strength: float) -> Image:
    """Return what a :class:`ColourEngine` makes of an RGB image."""
    pixels = image.astype(np.float32)
    styled = pixels @ tokens[:, :3].T + tokens[:, 3]
    mixed = pixels + np.float32(strength) * (styled - pixels)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


class ColourEngine:
    """Transforms colours; remembers in a session's state how many frames it has seen."""

    name = "colour"
    device = "test"
    model = "colours"
    pixel_format: PixelFormat = "rgb24"
    default_strength = 1.0
    styles = (
        Style("invert", ("negative",)),
        Style("swap"),
        Style("grey", ("gray",)),
        Style("same"),
    )

    def __init__(self, size: Size | None = None, max_batch: int = 4) -> None:
        self.size = size or Size(64, 48)
        self.max_batch = max_batch
        self.thread = threading.get_ident()
        self.batches: list[int] = []
        self.is_closed = False

    def encode_prompt(self, prompt: str) -> Conditioning:
        if self.is_closed:
            raise EngineClosed("the engine is closed")
        if prompt not in TRANSFORMS:
            raise PromptError(f'no style is named "{prompt}"; the nearest are invert and swap')
        return Conditioning(prompt, TRANSFORMS[prompt], np.zeros(0, np.float32))

    def translate(self, jobs: Sequence[Job]) -> list[Image]:
        self._check_thread()
        assert 1 <= len(jobs) <= self.max_batch
        self.batches.append(len(jobs))
        for job in jobs:
            assert job.image.shape == (self.size.height, self.size.width, 3)
            job.state.memory = (job.state.memory or 0) + 1
        return [transform(j.image, j.conditioning.tokens, j.settings.strength) for j in jobs]

    def close(self) -> None:
        self._check_thread()
        self.is_closed = True

    def _check_thread(self) -> None:
        assert threading.get_ident() == self.thread, "an engine lives in one thread"
        if self.is_closed:
            raise EngineClosed("the engine is closed")


class SlowEngine(ColourEngine):
    """Takes ``step_s`` for each batch."""

    def __init__(self, step_s: float, size: Size | None = None, max_batch: int = 4) -> None:
        super().__init__(size, max_batch)
        self.step_s = step_s

    def translate(self, jobs: Sequence[Job]) -> list[Image]:
        time.sleep(self.step_s)
        return super().translate(jobs)


class GatedEngine(ColourEngine):
    """Stops in each batch until the test opens the gate."""

    def __init__(self, size: Size | None = None, max_batch: int = 4) -> None:
        super().__init__(size, max_batch)
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def translate(self, jobs: Sequence[Job]) -> list[Image]:
        self.entered.release()
        assert self.gate.acquire(timeout=10), "the test did not open the gate"
        return super().translate(jobs)


class ReadingEngine(ColourEngine):
    """Stops at each new prompt until the test opens the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self._known: dict[str, Conditioning] = {}

    def encode_prompt(self, prompt: str) -> Conditioning:
        if prompt not in self._known:
            self.entered.release()
            assert self.gate.acquire(timeout=10), "the test did not open the gate"
            self._known[prompt] = super().encode_prompt(prompt)
        return self._known[prompt]


class FailingEngine(ColourEngine):
    """Raises in the batches for which ``fails`` says so; counted from 0."""

    def __init__(self, fails: Callable[[int], bool], error: Exception | None = None) -> None:
        super().__init__()
        self.fails = fails
        self.error = error or EngineError("the card fell off the bus")
        self.calls = 0

    def translate(self, jobs: Sequence[Job]) -> list[Image]:
        call, self.calls = self.calls, self.calls + 1
        if self.fails(call):
            raise self.error
        return super().translate(jobs)
