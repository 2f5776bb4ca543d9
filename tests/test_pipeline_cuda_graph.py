"""The CUDA engine, unmodified, on a simulated device gives every session eager's pictures."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from cuda_models import make_conditioning, make_step, to_cuda_model
from cuda_sessions import (
    CALM,
    SCRIPT,
    SIZE,
    EagerSession,
    difference,
    jobs_of,
    make_engine,
    picture,
    play,
    running_device,
)

from pipeline.engines.cuda_graph import CudaGraphEngine
from pipeline.engines.engine import Job, TemporalState
from pipeline.errors import EngineClosed, EngineError
from pipeline.kernels import launcher, operations
from simulated import host_kernels
from simulated.fake import DEVICE


@pytest.fixture
def device(monkeypatch):
    """A running simulated device, with frames converted in plain torch."""
    with running_device(monkeypatch) as running:
        yield running


@pytest.fixture
def step():
    """A step on the CPU for what does not depend on the networks."""
    return make_step("plain")


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
    assert list(engine._graphs) == [2, 1], "the largest is captured first"
    pools = [graph.recording.pool for graph in engine._graphs.values()]
    assert pools[0] is pools[1], "and the others find room in its memory"


class Watches(torch.nn.Module):
    """A step that notes what the libraries are told whenever it runs."""

    def __init__(self, step) -> None:
        super().__init__()
        self.step = step
        self.seen: set[tuple[bool, ...]] = set()

    def draw(self, pixels, noise, tokens, pooled, strength):
        cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
        is_channels_last = pixels.is_contiguous(memory_format=torch.channels_last)
        self.seen.add(
            (
                cudnn.benchmark,
                cudnn.allow_tf32,
                cuda.matmul.allow_tf32,
                cuda.flash_sdp_enabled(),
                not cuda.cudnn_sdp_enabled(),
                torch.is_grad_enabled() is False,
                is_channels_last,
            )
        )
        return self.step.draw(pixels, noise, tokens, pooled, strength)


def test_libraries_are_told_before_the_first_kernel(device, step):
    """Tuning, TF32 and the kinds of attention are the same in warm-up, capture and eager."""
    watching = Watches(step)
    model = to_cuda_model(device.module(watching))
    CudaGraphEngine(model, SIZE, torch.float32, (1,))
    assert model.step.seen == {(True,) * 7}


def test_an_engine_at_work_takes_nothing_from_one_that_is_built(device, step):
    """What a capture needs of the libraries stays while another thread's batches begin and end."""
    at_work, built = make_engine(device, step, (1,)), make_engine(device, step, (1,))
    batch = at_work.on_stream()
    batch.__enter__()
    with built.on_stream():
        batch.__exit__(None, None, None)
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.backends.cuda.flash_sdp_enabled()


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
