"""The CUDA engine, unmodified, on a simulated device: eager's pictures, and no fault unnoticed."""

from __future__ import annotations

import logging
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from cuda_models import make_conditioning, make_step, to_cuda_model

from pipeline.config import Size
from pipeline.engines.cuda_batch import Slot, StaticBatch
from pipeline.engines.cuda_graph import CudaGraphEngine, translate_frames
from pipeline.engines.engine import Job, Settings, TemporalState
from pipeline.errors import EngineClosed, EngineError
from pipeline.kernels import launcher, operations
from pipeline.noise import make_noise
from pipeline.translate import StepInputs
from simulated import host_kernels
from simulated.device import SimulatedDevice
from simulated.fake import DEVICE
from simulated.tensors import RaceFound

SIZE = Size(64, 64)
FRAME = (96, 64)
LATENTS = (4, 8, 8)


@pytest.fixture
def device(monkeypatch):
    """A running simulated device, with frames converted in plain torch."""
    decision = launcher.Decision(None, "frames in plain torch: for this test")
    monkeypatch.setattr(launcher, "kernels_for", lambda _: decision)
    with torch.no_grad(), SimulatedDevice() as running:
        yield running


@pytest.fixture
def step():
    """A step on the CPU for what does not depend on the networks."""
    return make_step("plain")


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


@pytest.mark.parametrize("name", ["tiny", "released"])
def test_replays_give_eagers_pictures(name, device):
    """Sessions that come, go and change everything get what each would get alone."""
    step = make_step(name)
    engine = make_engine(device, step)
    assert engine.name == "cuda-graph"
    assert engine.max_batch == 2
    worst = play(engine, step, SCRIPT)
    print(f"largest difference to eager: {worst} of 255")
    assert worst <= 1
    assert device.replays == len(SCRIPT)


def test_the_frame_path_never_stops_the_host(device, step):
    """No synchronisation, no copy through pageable memory, no spinning wait; capture in peace."""
    engine = make_engine(device, step)
    play(engine, step, SCRIPT)
    assert device.stalls == []
    assert device.capture_modes == ["thread_local", "thread_local"]


def test_half_precision_gives_eagers_pictures(device):
    """In float16, replays agree with eager in float16."""
    step = make_step("released")
    engine = make_engine(device, step.half(), dtype=torch.float16)
    assert play(engine, step, SCRIPT[:3], torch.float16) <= 2


@pytest.fixture
def launches(device, monkeypatch):
    """Own kernels: the real launcher, and the kernels' own source on the CPU."""
    pytest.importorskip("cuda.core")
    seen: list[str] = []

    def launch(stream, config, kernel, *arguments):
        seen.append(kernel.name)
        host_kernels.launch(stream, config, kernel, *arguments)

    monkeypatch.setattr("cuda.core.launch", launch)
    decision = launcher.Decision(host_kernels.kernels(), "own kernels for frames, on the host")
    monkeypatch.setattr(launcher, "_decisions", {DEVICE: decision})
    # The bodies below see the device's tensors as the CPU's.
    monkeypatch.setattr(launcher, "kernels_for", lambda _: launcher._decisions[DEVICE])
    device.bodies = {
        torch.ops.sdxs.frames_to_pixels.default: operations.cuda_frames_to_pixels,
        torch.ops.sdxs.pixels_to_frames.default: operations.cuda_pixels_to_frames,
    }
    return seen


def test_the_kernels_run_inside_the_graph(device, step, launches):
    """The frame kernels' own source, launched by the real launcher, gives the same pictures."""
    engine = make_engine(device, step)
    assert "own kernels for frames" in engine.device
    launches.clear()
    assert play(engine, step, SCRIPT[:4]) <= 1
    assert launches.count("frames_to_pixels") == launches.count("pixels_to_frames") == 4
    assert device.replays == 4


@pytest.mark.parametrize("when", ["capturing", "always"])
@pytest.mark.usefixtures("launches")
def test_kernels_that_fail_are_given_up_before_graphs(when, device, step, monkeypatch, caplog):
    """Where own kernels cannot be launched or captured, plain torch is captured instead."""
    from cuda.core._utils.cuda_utils import CUDAError

    def launch(*arguments):
        if when == "always" or torch.cuda.is_current_stream_capturing():
            raise CUDAError("CUDA_ERROR_INVALID_VALUE:\nthis is a test")
        host_kernels.launch(*arguments)

    monkeypatch.setattr("cuda.core.launch", launch)
    engine = make_engine(device, step)
    assert engine.name == "cuda-graph"
    assert engine.graph_sizes == [1, 2]
    assert "frames in plain torch: with own kernels, the frame kernels could not" in engine.device
    assert caplog.text.count("frames in plain torch") == 1
    assert play(engine, step, SCRIPT[:4]) <= 1
    assert device.replays == 4


def jobs_of(*seeds: int, step, settings=CALM) -> list[Job]:
    """Return first frames of new sessions."""
    return [Job(picture(seed), make_conditioning(seed, step), settings) for seed in seeds]


@pytest.mark.parametrize("name", ["tiny", "released"])
def test_a_row_never_depends_on_its_neighbours(name, device):
    """Whoever else is in the batch, and whatever their pictures hold, a row stays the same."""
    step = make_step(name)
    engine = make_engine(device, step, (4,))
    pictures = []
    for others in ((2, 3, 4), (5, 6, 7), ()):
        first = jobs_of(1, *others, step=step)
        pictures.append(engine.translate(first)[0])
        pictures.append(engine.translate([Job(picture(1), first[0].conditioning)])[0])
    poisoned = jobs_of(1, 8, step=step)
    broken = poisoned[1].conditioning
    broken.tokens[:] = np.nan
    pictures.append(engine.translate(poisoned)[0])
    assert all(np.array_equal(other, pictures[0]) for other in pictures[::2])
    assert all(np.array_equal(other, pictures[1]) for other in pictures[1::2])


def test_a_forgotten_memory_is_not_read(device, step):
    """After a scene cut, a session's next picture is that of a new session."""
    engine = make_engine(device, step, (1,))
    state, calm = TemporalState(), make_conditioning(1, step)
    near = picture(1)
    near[:64] += 3
    first = engine.translate([Job(picture(1), calm, CALM, state)])[0]
    remembering = engine.translate([Job(near, calm, CALM, state)])[0]
    state.forget()
    fresh = engine.translate([Job(near, calm, CALM, state)])[0]
    assert np.array_equal(fresh, engine.translate([Job(near, calm, CALM)])[0])
    assert not np.array_equal(fresh, remembering)
    assert not np.array_equal(first, remembering)


def test_a_memory_of_another_engine_is_not_read(device, step):
    """A session that comes from another engine starts afresh."""
    one, other = make_engine(device, step, (1,)), make_engine(device, step, (1,))
    state = TemporalState()
    job = Job(picture(1), make_conditioning(1, step), CALM, state)
    first = one.translate([job])[0]
    one.translate([job])
    assert np.array_equal(other.translate([job])[0], first)
    state.memory = torch.zeros(1, 3, 64, 64)
    assert np.array_equal(other.translate([job])[0], first)


def test_two_batches_are_under_way_at_once(device, step):
    """While one batch is computed the next is copied; a third has to wait for its slot."""
    engine = make_engine(device, step)
    one, two = jobs_of(1, step=step), jobs_of(2, 3, step=step)
    expected = [EagerSession(step).translate(job) for job in (*one, *two)]
    first, second = engine.submit(one), engine.submit(two)
    with pytest.raises(EngineError, match="2 batches are under way"):
        engine.submit(one)
    images = engine.collect(first) + engine.collect(second)
    pairs = zip(images, expected, strict=True)
    assert max(difference(*pair) for pair in pairs) <= 1


def test_results_belong_to_the_caller(device, step):
    """A picture does not change when the next one is made."""
    engine = make_engine(device, step, (1,))
    first = engine.translate(jobs_of(1, step=step))[0]
    copy = first.copy()
    engine.translate(jobs_of(2, step=step))
    assert np.array_equal(first, copy)


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        (0, "1 to 2 jobs (got 0)"),
        (3, "1 to 2 jobs (got 3)"),
        (1, "an image has the shape (96, 64)"),
    ],
)
def test_a_wrong_batch_is_refused(jobs, message, device, step):
    """Too few or too many jobs, or an image of another shape, are named and refused."""
    engine = make_engine(device, step)
    batch = jobs_of(*range(jobs), step=step)
    if jobs == 1:
        batch[0].image = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(EngineError, match=re.escape(message)):
        engine.translate(batch)


def test_a_closed_engine_says_so(device, step):
    """Closing twice is fine; using the engine afterwards is not."""
    engine = make_engine(device, step, (1,))
    engine.close()
    engine.close()
    with pytest.raises(EngineClosed):
        engine.translate(jobs_of(1, step=step))


# Faults planted in the engine.


def test_not_waiting_is_noticed(device, step, monkeypatch):
    """Without the wait for a batch to leave, pictures are not the right ones."""
    engine = make_engine(device, step)
    for slot in engine._slots:
        monkeypatch.setattr(slot.finished, "synchronize", lambda: None)
    with pytest.raises(AssertionError):
        assert play(engine, step, SCRIPT) <= 1


def test_a_spinning_event_is_noticed(device, step):
    """An event that keeps a core busy is listed."""
    engine = make_engine(device, step)
    for slot in engine._slots:
        slot.finished = torch.cuda.Event()
    play(engine, step, SCRIPT[:1])
    assert len(device.stalls) == 1


def test_one_slot_for_two_batches_is_noticed(device, step):
    """Two batches over the same pinned memory do not pass."""
    engine = make_engine(device, step)
    engine._slots = [engine._slots[0]] * 2
    first, second = jobs_of(1, step=step), jobs_of(2, step=step)
    ticket = engine.submit(first)
    ticket.slot.is_taken = False
    with pytest.raises(RaceFound):
        engine.collect(engine.submit(second))


def test_a_rebound_tensor_is_noticed(device, step, monkeypatch):
    """Settings in a new tensor, instead of the captured one, do not pass."""
    engine = make_engine(device, step)

    def rebind(self, slot, jobs, batch):
        rows = fill(self, slot, jobs, batch)
        self.settings = self.settings.clone()
        self.inputs = self.inputs._replace(
            strength=self.settings[0].view(-1, 1, 1, 1),
            stability=self.settings[1].view(-1, 1, 1, 1),
        )
        return rows

    fill = StaticBatch.fill
    monkeypatch.setattr(StaticBatch, "fill", rebind)
    states = [TemporalState() for _ in range(2)]
    frozen = [
        engine.translate([Job(picture(1), make_conditioning(1, step), settings, state)])
        for settings, state in zip((CALM, Settings(0.9, 1, 0.9)), states, strict=True)
    ]
    assert engine.reason or np.array_equal(frozen[0], frozen[1])


class HostValue(torch.nn.Module):
    """A step with a number of Python's that changes from frame to frame."""

    def __init__(self, step) -> None:
        super().__init__()
        self.step = step
        self.calls = 0

    def draw(self, pixels, noise, tokens, pooled, strength):
        self.calls += 1
        return self.step.draw(pixels, noise, tokens, pooled, strength) / (1 + self.calls % 5)


class IntTimestep(torch.nn.Module):
    """A step whose timestep is a number of Python's, which diffusers copies to the device."""

    def __init__(self, step) -> None:
        super().__init__()
        self.step = step

    def draw(self, pixels, noise, tokens, pooled, strength):
        self.step.unet(noise, 999, encoder_hidden_states=tokens)
        return self.step.draw(pixels, noise, tokens, pooled, strength)


class AsksTheDevice(IntTimestep):
    """A step that looks at a result."""

    def draw(self, pixels, noise, tokens, pooled, strength):
        drawn = self.step.draw(pixels, noise, tokens, pooled, strength)
        return drawn if drawn.abs().max().item() < 1e6 else drawn * 0


class CopiesToTheHost(IntTimestep):
    """A step that copies a result to the host."""

    def draw(self, pixels, noise, tokens, pooled, strength):
        pixels.cpu()
        return self.step.draw(pixels, noise, tokens, pooled, strength)


class CopiesFromTheHost(IntTimestep):
    """A step that fills a tensor from the host."""

    def draw(self, pixels, noise, tokens, pooled, strength):
        scale = torch.ones(1).to(pixels.device)
        return self.step.draw(pixels * scale, noise, tokens, pooled, strength)


@pytest.mark.parametrize("fault", [IntTimestep, AsksTheDevice, CopiesToTheHost, CopiesFromTheHost])
def test_what_cannot_be_captured_runs_eagerly(fault, device, caplog):
    """A step that cannot be captured turns graphs off, loudly; pictures stay right."""
    step = make_step("released" if fault is IntTimestep else "plain")
    engine = make_engine(device, fault(step))
    assert engine.name == "cuda-eager"
    assert "capturing failed" in engine.reason
    assert engine.reason in engine.device
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1
    assert play(engine, step, SCRIPT) <= 1
    assert device.replays == 0


def test_a_replay_that_differs_from_eager_turns_graphs_off(device, step, caplog):
    """A step that a graph cannot follow is found by the comparison at the start."""
    engine = make_engine(device, HostValue(step))
    assert engine.name == "cuda-eager"
    assert re.search(r"a replay of batch 2 differs from eager by \d+ of 255", engine.reason)
    assert "going on with" in caplog.text


def test_results_left_in_the_pool_turn_graphs_off(device, step, monkeypatch):
    """Results that are read where another graph may write are found at the start."""

    def keep(self, results, memory):
        self.results = results

    monkeypatch.setattr(StaticBatch, "keep", keep)
    assert make_engine(device, step).name == "cuda-eager"


def test_a_graph_that_fails_in_service_is_dropped(device, step, monkeypatch, caplog):
    """The frame is made all the same, eagerly, and the reason is told."""
    engine = make_engine(device, step)

    def fail():
        raise RuntimeError("CUDA error: unspecified launch failure\nCompile with ...")

    monkeypatch.setattr(engine._graphs[2], "replay", fail)
    assert play(engine, step, SCRIPT) <= 1
    assert sorted(engine._graphs) == [1]
    assert engine.reason == "the graph of batch 2 failed: CUDA error: unspecified launch failure"
    assert engine.reason in engine.device
    assert engine.name == "cuda-graph"
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1


def test_a_device_that_fails_is_an_engine_error(device, step, monkeypatch):
    """When waiting for a batch fails, the engine says that it cannot go on."""
    engine = make_engine(device, step)

    def fail():
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    for slot in engine._slots:
        monkeypatch.setattr(slot.finished, "synchronize", fail)
    with pytest.raises(EngineError, match=r"illegal memory access was encountered$"):
        engine.translate(jobs_of(1, step=step))


class NeedsMemory(torch.nn.Module):
    """A step that runs out of memory above some batch size."""

    def __init__(self, step, largest: int) -> None:
        super().__init__()
        self.step = step
        self.largest = largest

    def draw(self, pixels, noise, tokens, pooled, strength):
        if len(pixels) > self.largest:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.step.draw(pixels, noise, tokens, pooled, strength)


def test_batches_that_do_not_fit_are_left_out(device, step, caplog):
    """The largest batch is what memory allows."""
    engine = make_engine(device, NeedsMemory(step, 2), (1, 2, 4))
    assert engine.max_batch == 2
    assert "batches of 4 do not fit" in caplog.text
    assert play(engine, step, SCRIPT[:2]) <= 1


def test_a_model_that_does_not_fit_is_refused(device, step):
    """A model too large for the card is refused with a way out."""
    with pytest.raises(EngineError, match="choose a smaller --size"):
        make_engine(device, NeedsMemory(step, 0))


def test_a_step_that_does_not_run_is_refused(device, step):
    """A step that fails eagerly too is an error of the engine, with the step's reason."""
    broken = replace(to_cuda_model(step), step=BrokenStep())
    with pytest.raises(EngineError, match="small does not run: no kernel image is available"):
        CudaGraphEngine(broken, SIZE, torch.float32, (1,))


class BrokenStep:
    """A step for which the card has no kernels."""

    def draw(self, pixels, noise, tokens, pooled, strength):
        raise RuntimeError("no kernel image is available")


def test_weights_that_draw_one_picture_are_refused(device, step):
    """Weights that give NaN, as float16 may, are found before the first frame."""
    step.unet.weight.fill_(torch.nan)
    with pytest.raises(EngineError, match="draws one picture from different ones"):
        make_engine(device, step)


def test_slots_are_pinned(device, step):
    """What is copied from and to lies in pinned memory."""
    engine = make_engine(device, step)
    slot = engine._slots[0]
    tensors = [value for value in vars(slot).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 6
    assert all(tensor.is_pinned() for tensor in tensors)
    assert isinstance(slot, Slot)
