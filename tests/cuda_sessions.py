"""Sessions on the CUDA engine, and what each should see: the step on the CPU, alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from cuda_models import make_conditioning, to_cuda_model

from pipeline.config import Size
from pipeline.engines.cuda_graph import CudaGraphEngine, translate_frames
from pipeline.engines.engine import Job, Settings, TemporalState
from pipeline.kernels import launcher
from pipeline.noise import make_noise
from pipeline.translate import StepInputs
from simulated.device import SimulatedDevice

SIZE = Size(64, 64)
FRAME = (96, 64)
LATENTS = (4, 8, 8)


@contextmanager
def running_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedDevice]:
    """Run a simulated device, with frames converted in plain torch."""
    decision = launcher.Decision(None, "frames in plain torch: for this test")
    monkeypatch.setattr(launcher, "kernels_for", lambda _: decision)
    with torch.no_grad(), SimulatedDevice() as running:
        yield running


def make_engine(device, step, batch_sizes=(1, 2), dtype=torch.float32) -> CudaGraphEngine:
    """Start an engine; what it did to start is forgotten."""
    model = to_cuda_model(device.module(step.to(dtype)))
    engine = CudaGraphEngine(model, SIZE, dtype, batch_sizes)
    device.stalls.clear()
    device.replays = 0
    return engine


def picture(seed: int) -> np.ndarray:
    """Return a smooth frame, so that consecutive ones may be near each other."""
    random = np.random.default_rng(seed)
    frame = np.full(FRAME, 128, np.uint8)
    frame[:64] = random.integers(30, 220, (8, 8)).repeat(8, 0).repeat(8, 1)
    return frame


class EagerSession:
    """What one session's pictures should be: the step on the CPU, alone."""

    def __init__(self, step, dtype=torch.float32) -> None:
        self.step = step
        self.dtype = dtype
        self.memory = None

    def translate(self, job: Job) -> np.ndarray:
        def row(values):
            return torch.from_numpy(np.array(values))[None].to(self.dtype)

        is_first = self.memory is None
        inputs = StepInputs(
            images=torch.from_numpy(job.image)[None],
            memory=torch.zeros(1, 3, 64, 64, dtype=self.dtype) if is_first else self.memory,
            noise=row(make_noise(job.settings.seed, LATENTS)),
            tokens=row(job.conditioning.tokens),
            pooled=row(job.conditioning.pooled),
            strength=torch.full((1, 1, 1, 1), job.settings.strength, dtype=self.dtype),
            stability=torch.full(
                (1, 1, 1, 1), 0.0 if is_first else job.settings.stability, dtype=self.dtype
            ),
        )
        frames, self.memory = translate_frames(self.step, inputs)
        return frames[0].numpy()


def difference(image: np.ndarray, expected: np.ndarray) -> int:
    """Return the largest difference of two pictures, of 255."""
    return int(np.abs(image.astype(int) - expected).max())


def play(engine, step, script, dtype=torch.float32) -> int:
    """Run batches of (session, frame, settings); return the largest difference to eager."""
    states: dict[str, TemporalState] = {}
    eager: dict[str, EagerSession] = {}
    worst = 0
    for at, batch in enumerate(script):
        jobs = []
        for name, settings in batch:
            states.setdefault(name, TemporalState())
            eager.setdefault(name, EagerSession(step, dtype))
            conditioning = make_conditioning(ord(name) + at // 3, step)
            frame = picture(ord(name) + at // 4)
            frame[:64] += 2 * (at % 3)
            jobs.append(Job(frame, conditioning, settings, states[name]))
        names = [name for name, _ in batch]
        expected = [eager[name].translate(job) for name, job in zip(names, jobs, strict=True)]
        images = engine.translate(jobs)
        assert len({image.tobytes() for image in (*images, *expected)}) > 1 or len(batch) == 1
        pairs = zip(images, expected, strict=True)
        worst = max(worst, *(difference(*pair) for pair in pairs))
    return worst


CALM, WILD = Settings(0.4, 1, 0.9), Settings(0.9, 2, 0.3)
SCRIPT = [
    [("a", CALM)],
    [("a", CALM), ("b", WILD)],
    [("b", WILD), ("a", CALM)],
    [("c", CALM)],
    [("c", WILD), ("b", CALM)],
    [("a", WILD)],
    [("a", CALM), ("c", CALM)],
    [("b", WILD)],
]
"""Three sessions on two rows: they come, go, change places, settings, prompts and pictures."""


def jobs_of(*seeds: int, step, settings=CALM) -> list[Job]:
    """Return first frames of new sessions."""
    return [Job(picture(seed), make_conditioning(seed, step), settings) for seed in seeds]
