"""The simulated device notices what a real one would punish later, elsewhere, or never."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    AutoencoderTiny,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from simulated.device import SimulatedDevice
from simulated.guard import CaptureUnsafe
from simulated.tensors import RaceFound

SHAPE = (3, 16, 16)
FRAMES = [torch.full((batch, *SHAPE), 0.1 * at) for at, batch in enumerate((1, 2, 1, 1, 2))]
STRENGTHS = [0.1, 0.9, 0.4, 0.4, 0.2]


@pytest.fixture
def device():
    """A running device."""
    with torch.no_grad(), SimulatedDevice() as running:
        yield running


@pytest.fixture(scope="module")
def autoencoder():
    """A small network with convolutions."""
    torch.manual_seed(0)
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
    ).eval()


def make_step(network):
    """Return something worth capturing: (B, 3, H, W) and a strength in, the like out."""

    def step(pixels: Tensor, strength: Tensor) -> Tensor:
        latents = network.encode(pixels, return_dict=False)[0]
        return network.decode(latents * strength, return_dict=False)[0] + pixels

    return step


class Runner:
    """Graphs of two batch sizes and two pinned slots, as simply as can be; right as it stands."""

    def __init__(self, step, depth: int = 2) -> None:
        self.step = step  # owns the weights that the graphs read
        self.stream = torch.cuda.Stream()
        self.pool = torch.cuda.graph_pool_handle()
        self.graphs = {batch: self.capture(step, batch) for batch in (2, 1)}
        self.sent = [torch.empty((2, *SHAPE), pin_memory=True) for _ in range(depth)]
        self.back = [torch.empty((2, *SHAPE), pin_memory=True) for _ in range(depth)]
        self.taken = [torch.cuda.Event(blocking=True) for _ in range(depth)]
        self.finished = [torch.cuda.Event(blocking=True) for _ in range(depth)]
        self.count = 0

    def capture(self, step, batch):
        with torch.cuda.stream(self.stream):
            pixels = torch.zeros((batch, *SHAPE), device="cuda")
            strength = torch.full((), 0.5, device="cuda")
            result = torch.zeros((batch, *SHAPE), device="cuda")
            step(pixels, strength)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"
        ):
            inside = step(pixels, strength)
            result.copy_(inside)
        return graph, pixels, strength, result, inside

    def submit(self, frames: Tensor, strength: float) -> tuple[int, int]:
        slot, self.count = self.count % len(self.sent), self.count + 1
        graph, static, static_strength, result, _ = self.graphs[len(frames)]
        self.taken[slot].synchronize()
        self.sent[slot][: len(frames)].copy_(frames)
        with torch.cuda.stream(self.stream):
            static.copy_(self.sent[slot][: len(frames)], non_blocking=True)
            static_strength.fill_(strength)
            self.taken[slot].record()
            graph.replay()
            self.back[slot][: len(frames)].copy_(result, non_blocking=True)
            self.finished[slot].record()
        return slot, len(frames)

    def result(self, ticket: tuple[int, int]) -> Tensor:
        slot, batch = ticket
        self.finished[slot].synchronize()
        return self.back[slot][:batch].clone()


def errors(runner, step) -> list[float]:
    """Return each frame's largest error, with two frames in flight; NaN where it is garbage."""
    tickets, results = [], []
    for frames, strength in zip(FRAMES, STRENGTHS, strict=True):
        tickets.append(runner.submit(frames, strength))
        if len(tickets) > 1:
            results.append(runner.result(tickets[-2]))
    results.append(runner.result(tickets[-1]))
    expected = [step(f, torch.tensor(s)) for f, s in zip(FRAMES, STRENGTHS, strict=True)]
    return [float((a - b).abs().max()) for a, b in zip(results, expected, strict=True)]


def test_a_correct_program_runs_unmodified(device, autoencoder):
    """Graphs, streams, events and pinned memory give the CPU's numbers, bit for bit."""
    runner = Runner(make_step(device.module(autoencoder)))
    device.stalls.clear()
    assert errors(runner, make_step(autoencoder)) == [0.0] * 5
    assert device.replays == 5
    assert device.stalls == []


class DoesNotWait(Runner):
    """Reads a result without waiting for it."""

    def result(self, ticket):
        slot, batch = ticket
        return self.back[slot][:batch].clone()


class ReadsThroughNumpy(Runner):
    """Reads a result without waiting, past torch."""

    def result(self, ticket):
        slot, batch = ticket
        return torch.from_numpy(self.back[slot][:batch].numpy().copy())


class OneSlot(Runner):
    """Has two frames in flight over one pinned slot."""

    def __init__(self, step) -> None:
        super().__init__(step, depth=1)


class OverwritesStaging(Runner):
    """Fills a slot before its last copy has been taken."""

    def __init__(self, step) -> None:
        super().__init__(step, depth=1)
        self.taken[0].synchronize = lambda: None
        self.finished[0].synchronize = lambda: None


class WritesThroughNumpy(Runner):
    """Fills a slot, past torch, before its last copy has been taken."""

    def submit(self, frames, strength):
        ticket = super().submit(frames, strength)
        self.sent[ticket[0]].numpy()[:] = 7
        return ticket


class ReadsPoolLate(Runner):
    """Takes the result from the pool after another graph has used it."""

    def submit(self, frames, strength):
        super().submit(frames, strength)
        return self.graphs[len(frames)][4], len(frames)

    def result(self, ticket):
        with torch.cuda.stream(self.stream):
            return ticket[0].cpu()


class Rebinds(Runner):
    """Puts a new tensor where the captured one should be filled."""

    def submit(self, frames, strength):
        graph, static, _, result, inside = self.graphs[len(frames)]
        with torch.cuda.stream(self.stream):
            rebound = torch.full((), strength, device="cuda")
        self.graphs[len(frames)] = (graph, static, rebound, result, inside)
        return super().submit(frames, strength)


class OtherStream(Runner):
    """Copies the input on another stream than the graph's, without an order between them."""

    def submit(self, frames, strength):
        static = self.graphs[len(frames)][1]
        pinned = torch.empty(frames.shape, pin_memory=True).copy_(frames)
        static.copy_(pinned, non_blocking=True)
        return super().submit(frames, strength)


class NoWarmUp(Runner):
    """Captures what has never run."""

    def capture(self, step, batch):
        self.stream = torch.cuda.Stream()
        with torch.cuda.graph(torch.cuda.CUDAGraph(), pool=self.pool, stream=self.stream):
            return


class DefaultStream(Runner):
    """Captures on no stream of its own."""

    def capture(self, step, batch):
        with torch.cuda.graph(torch.cuda.CUDAGraph(), pool=self.pool):
            return


@pytest.mark.parametrize(
    ("runner", "error"),
    [
        (DoesNotWait, RaceFound),
        (OverwritesStaging, RaceFound),
        (WritesThroughNumpy, RaceFound),
        (OtherStream, RaceFound),
        (Rebinds, RuntimeError),
        (NoWarmUp, CaptureUnsafe),
        (DefaultStream, CaptureUnsafe),
    ],
)
def test_a_fault_is_an_error(runner, error, device, autoencoder):
    """What a real device would let pass in silence is an error at once."""
    with pytest.raises(error):
        errors(runner(make_step(device.module(autoencoder))), make_step(autoencoder))


@pytest.mark.parametrize("runner", [ReadsThroughNumpy, ReadsPoolLate, OneSlot])
def test_a_fault_gives_wrong_numbers(runner, device, autoencoder):
    """What no check can see gives another frame's numbers, or none at all."""
    found = errors(runner(make_step(device.module(autoencoder))), make_step(autoencoder))
    assert not all(error < 0.01 for error in found)


class Spins(Runner):
    """Waits by an event that keeps a core busy."""

    def __init__(self, step) -> None:
        super().__init__(step)
        self.finished = [torch.cuda.Event() for _ in self.finished]


class StopsTheWorld(Runner):
    """Waits for the whole device."""

    def result(self, ticket):
        torch.cuda.synchronize()
        return super().result(ticket)


class Pageable(Runner):
    """Copies from and to memory that is not pinned."""

    def __init__(self, step) -> None:
        super().__init__(step)
        self.back = [torch.empty_like(back) for back in self.back]


@pytest.mark.parametrize("runner", [Spins, StopsTheWorld, Pageable])
def test_a_slow_way_is_noted(runner, device, autoencoder):
    """What is right but makes the host wait or spin is listed, with its line."""
    faulty = runner(make_step(device.module(autoencoder)))
    device.stalls.clear()
    assert errors(faulty, make_step(autoencoder)) == [0.0] * 5
    assert len(device.stalls) >= 5
    assert "test_simulated_device.py" in device.stalls[0]


def captured(device, step) -> torch.cuda.CUDAGraph:
    """Warm a step up and capture it, on a stream of its own."""
    stream = torch.cuda.Stream()
    graph = torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.zeros(1, device="cuda").add_(1)
    with torch.cuda.graph(graph, stream=stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    return graph


def test_a_replay_knows_no_python_value(device):
    """A number of Python's keeps its value from the capture; a device tensor does not."""
    pixels, strength = device.put(torch.ones(4)), device.put(torch.tensor(2.0))
    host = {"strength": 2.0}
    frozen, live = device.put(torch.zeros(4)), device.put(torch.zeros(4))

    def step():
        frozen.copy_(pixels * host["strength"])
        live.copy_(pixels * strength)

    graph = captured(device, step)
    host["strength"] = 3.0
    strength.fill_(3.0)
    graph.replay()
    assert frozen.cpu().tolist() == [2.0] * 4
    assert live.cpu().tolist() == [3.0] * 4


def test_a_capture_computes_nothing(device):
    """Until the first replay, static memory is as it was and results are garbage."""
    static = device.put(torch.zeros(4))
    results = []
    graph = captured(device, lambda: results.append(static.add_(1) * 2))
    assert static.cpu().tolist() == [0.0] * 4
    assert torch.isnan(results[0].cpu()).all()
    graph.replay()
    assert static.cpu().tolist() == [1.0] * 4
    assert results[0].cpu().tolist() == [2.0] * 4


def test_a_graph_does_not_outlive_what_it_reads(device):
    """A replay over freed memory is an error, and so is one of an emptied graph."""
    static = {"pixels": device.put(torch.ones(4))}
    graph = captured(device, lambda: static["pixels"] * 2)
    graph.replay()
    static["pixels"] = device.put(torch.ones(4))
    with pytest.raises(RuntimeError, match="freed"):
        graph.replay()
    graph.reset()
    with pytest.raises(RuntimeError, match="holds nothing"):
        graph.replay()


@pytest.mark.parametrize(
    "fault",
    [
        lambda x: x.sum().item(),
        lambda x: x.cpu(),
        lambda x: x.copy_(torch.ones(4)),
        lambda x: x[x > 0],
        lambda x: torch.empty(4, pin_memory=True),
        lambda x: torch.cuda.synchronize(),
        lambda x: torch.cuda.current_stream().synchronize(),
        lambda x: torch.cuda.Event().synchronize(),
        lambda x: torch.tensor([1.0], device="cuda"),
    ],
)
def test_what_may_not_be_captured_is_refused(fault, device):
    """The rules for tensors without contents hold here too, and those for events and streams."""
    pixels = device.put(torch.ones(4))
    with pytest.raises(CaptureUnsafe):
        captured(device, lambda: fault(pixels))


def test_host_tensors_do_not_mix_with_device_tensors(device):
    """As on a real device, an operation takes tensors of one device."""
    with pytest.raises(RuntimeError, match="expected all tensors on one device"):
        device.put(torch.ones(4)) + torch.ones(4)


def test_a_stream_that_waits_may_read(device):
    """Two streams share memory once one waits for the other's event."""
    stream, event = torch.cuda.Stream(), torch.cuda.Event()
    with torch.cuda.stream(stream):
        pixels = torch.ones(4, device="cuda")
        event.record()
    with pytest.raises(RaceFound):
        pixels.mul(2)
    torch.cuda.current_stream().wait_event(event)
    pixels.mul(2)
    with torch.cuda.stream(stream), pytest.raises(RaceFound):
        pixels.fill_(0)


SCHEDULERS = [
    EulerDiscreteScheduler,
    EulerAncestralDiscreteScheduler,
    DDPMScheduler,
    LCMScheduler,
    DPMSolverMultistepScheduler,
    TCDScheduler,
    DDIMScheduler,
    UniPCMultistepScheduler,
]


@pytest.mark.parametrize("kind", SCHEDULERS, ids=lambda kind: kind.__name__)
def test_diffusers_schedulers_may_not_be_captured(kind, device):
    """With their timesteps on the device they look for the step there, and the host waits."""
    scheduler = kind(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    scheduler.set_timesteps(1, device="cuda")
    latents, timestep = device.put(torch.ones(1, 4, 8, 8)), scheduler.timesteps[0]
    with pytest.raises(CaptureUnsafe):
        captured(device, lambda: scheduler.step(latents, timestep, latents))


def test_diffusers_add_noise_may_not_be_captured(device):
    """It moves its table to the device when it is first called."""
    latents, timestep = device.put(torch.ones(1, 4, 8, 8)), device.put(torch.tensor([500]))
    with pytest.raises(CaptureUnsafe):
        captured(device, lambda: DDPMScheduler().add_noise(latents, latents, timestep))


def test_a_captured_scheduler_stands_still(device):
    """With timesteps on the host a step is captured, and so is its sigma: replays do not go on."""
    scheduler = EulerDiscreteScheduler()
    scheduler.set_timesteps(4)
    latents, out = device.put(torch.ones(1, 4, 8, 8)), device.put(torch.zeros(1, 4, 8, 8))

    def step():
        out.copy_(scheduler.step(latents, scheduler.timesteps[0], latents).prev_sample)

    graph = captured(device, step)
    index = scheduler.step_index
    graph.replay()
    first = out.cpu()
    graph.replay()
    assert scheduler.step_index == index
    assert torch.equal(out.cpu(), first)


def test_noise_of_a_host_generator_may_not_be_captured(device):
    """Noise that is drawn on the host is copied to the device; a device generator's is not."""
    host = torch.Generator().manual_seed(0)
    with pytest.raises(CaptureUnsafe):
        captured(device, lambda: randn_tensor((1, 4, 8, 8), host, torch.device("cuda")))
