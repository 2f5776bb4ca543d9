"""Faults planted around the CUDA engine are noticed, survived or said; none passes."""

from __future__ import annotations

import logging
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from cuda_models import make_conditioning, make_step, to_cuda_model
from cuda_sessions import (
    CALM,
    SCRIPT,
    SIZE,
    jobs_of,
    make_engine,
    picture,
    play,
    running_device,
)

from pipeline.engines.cuda_batch import Slot, StaticBatch
from pipeline.engines.cuda_graph import CAPTURING, CudaGraphEngine
from pipeline.engines.engine import Job, Settings, TemporalState
from pipeline.engines.trial import TRIAL_SETTINGS, make_trial
from pipeline.errors import EngineError
from simulated.tensors import RaceFound


@pytest.fixture
def device(monkeypatch):
    """A running simulated device, with frames converted in plain torch."""
    with running_device(monkeypatch) as running:
        yield running


@pytest.fixture
def step():
    """A step on the CPU for what does not depend on the networks."""
    return make_step("plain")


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


class NotesItsTurn(torch.nn.Module):
    """A step that notes whether its capture keeps others out."""

    def __init__(self, step) -> None:
        super().__init__()
        self.step = step
        self.turns: list[bool] = []

    def draw(self, pixels, noise, tokens, pooled, strength):
        if torch.cuda.is_current_stream_capturing():
            self.turns.append(CAPTURING.locked())
        return self.step.draw(pixels, noise, tokens, pooled, strength)


@pytest.mark.parametrize("is_broken", [False, True])
def test_nobody_breaks_into_a_capture(is_broken, device, step, monkeypatch):
    """One engine at a time captures, waits for the whole device, or gives its memory back."""
    others: dict[str, list[bool]] = {"empty_cache": [], "synchronize": []}
    for name, turns in others.items():
        monkeypatch.setattr(
            torch.cuda, name, lambda *_, turns=turns: turns.append(CAPTURING.locked())
        )
    noting = NotesItsTurn(CopiesToTheHost(step) if is_broken else step)
    model = to_cuda_model(device.module(noting))
    CudaGraphEngine(model, SIZE, torch.float32, (1, 2)).close()
    assert model.step.turns
    assert all(model.step.turns)
    assert others["empty_cache"]
    assert all(others["empty_cache"])
    assert others["synchronize"] == [True] * is_broken
    assert not CAPTURING.locked()


def test_a_replay_that_differs_from_eager_turns_graphs_off(device, step, caplog):
    """A step that a graph cannot follow is found by the comparison at the start."""
    engine = make_engine(device, HostValue(step))
    assert engine.name == "cuda-eager"
    assert re.search(r"a replay of batch 2 differs from eager by \d+ of 255", engine.reason)
    assert "going on with" in caplog.text


class FreezesStrength(torch.nn.Module):
    """A step whose graph knows one strength: that of the comparison's first setting."""

    def __init__(self, step) -> None:
        super().__init__()
        self.step = step

    def draw(self, pixels, noise, tokens, pooled, strength):
        if torch.cuda.is_current_stream_capturing():
            strength = torch.full_like(strength, TRIAL_SETTINGS[0][0])
        return self.step.draw(pixels, noise, tokens, pooled, strength)


def test_a_graph_that_knows_one_setting_is_found(device, step):
    """The comparison asks for two settings, so that a frozen one shows."""
    assert "differs from eager" in make_engine(device, FreezesStrength(step)).reason


def test_the_comparison_varies_all_that_may_change(device, step):
    """Two inputs at each of two settings, for sessions that keep their memory in between."""
    batches = list(make_trial(make_engine(device, step).shape, 2))
    jobs = [job for batch in batches for job in batch]
    assert len({job.image.tobytes() for job in jobs}) == 8
    assert len({job.conditioning.tokens.tobytes() for job in jobs}) == 8
    assert len({(job.settings.strength, job.settings.stability) for job in jobs}) == 2
    assert [len({id(batch[row].state) for batch in batches}) for row in (0, 1)] == [1, 1]


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


class NeedsRoomBesideGraphs(torch.nn.Module):
    """A step that runs out of memory above some batch size once a graph of it holds its own."""

    def __init__(self, step, largest: int) -> None:
        super().__init__()
        self.step = step
        self.largest = largest
        self.captured: set[int] = set()

    def draw(self, pixels, noise, tokens, pooled, strength):
        batch = len(pixels)
        if torch.cuda.is_current_stream_capturing():
            self.captured.add(batch)
        elif batch > self.largest and batch in self.captured:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.step.draw(pixels, noise, tokens, pooled, strength)


def test_a_batch_that_cannot_be_compared_for_want_of_memory_is_left_out(device, step, caplog):
    """Eager needs room beside the graphs: without it, smaller batches go on."""
    engine = make_engine(device, NeedsRoomBesideGraphs(step, 2), (1, 2, 4))
    assert (engine.graph_sizes, engine.max_batch, engine.reason) == ([1, 2], 2, "")
    assert "batches of 4 do not fit" in caplog.text
    assert play(engine, step, SCRIPT[:2]) <= 1
    with pytest.raises(EngineError, match="close what else uses the card"):
        make_engine(device, NeedsRoomBesideGraphs(step, 0), (1, 2))


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


def test_pictures_lie_channels_last(device, step):
    """What the networks read and what the next frame remembers lie as convolutions want them."""
    memory = make_engine(device, step).static_rows(2).memory
    assert memory.is_contiguous(memory_format=torch.channels_last)
