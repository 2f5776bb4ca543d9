"""Published models on the CUDA engine, simulated: built as on a card, replayed as eager draws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cuda_sessions import EagerSession, difference, picture, running_device
from published_models import own_folder, write_model

import run
from pipeline.config import PUBLISHED_PRESETS, Preset, Size
from pipeline.engines import build, cuda_bench, cuda_build, cuda_graph
from pipeline.engines.build import EngineConfig, load_model
from pipeline.engines.cuda_graph import CudaGraphEngine
from pipeline.engines.engine import Engine, Job, Settings, TemporalState
from pipeline.hub import tell_nobody

SIZE = Size(64, 64)
PUBLISHED = PUBLISHED_PRESETS
SCRIPT = [
    # Sessions of a batch: name, picture, prompt, settings.
    [("a", 1, "a fox", Settings(0.4, 1, 0.9))],
    [("a", 1, "a fox", Settings(0.9, 1, 0.9)), ("b", 2, "", Settings(0.7, 2, 0.3))],
    [("b", 3, "a hut:0.3 + a fox:0.7", Settings(0.7, 2, 0.3)), ("a", 1, "a hut", Settings(0.2, 5))],
    [("c", 4, "an owl", Settings(1.0, 3, 0.0))],
]


@pytest.fixture
def device(monkeypatch):
    """A running simulated device, with frames converted in plain torch."""
    with running_device(monkeypatch) as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache of our own, in which a test puts models."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def play(engine: Engine, session_step) -> tuple[int, int]:
    """Run the script; return the largest difference to eager, and how many pictures differ."""
    states: dict[str, TemporalState] = {}
    alone: dict[str, EagerSession] = {}
    worst, seen = 0, set()
    for batch in SCRIPT:
        jobs = []
        for name, seed, prompt, settings in batch:
            state = states.setdefault(name, TemporalState())
            jobs.append(Job(picture(seed), engine.encode_prompt(prompt), settings, state))
        expected = [
            alone.setdefault(name, EagerSession(session_step)).translate(job)
            for (name, *_), job in zip(batch, jobs, strict=True)
        ]
        for image, wanted in zip(engine.translate(jobs), expected, strict=True):
            worst = max(worst, difference(image, wanted))
            seen.add(image.tobytes())
    return worst, len(seen)


@pytest.mark.parametrize("preset", PUBLISHED, ids=lambda preset: preset.name)
def test_replays_give_eagers_pictures(preset: Preset, cache: Path, device):
    """Whatever prompt, strength, seed, picture and neighbour: a replay draws what eager draws."""
    write_model(own_folder(cache, preset), preset.name)
    config = EngineConfig(preset.name)
    step = load_model(config, tell_nobody).to(torch.device("cpu"), torch.float32).step
    model = load_model(config, tell_nobody).to(torch.device("cuda", 0), torch.float32)
    engine = CudaGraphEngine(model, SIZE, torch.float32, (2,))
    assert engine.reason == ""
    device.replays = 0
    worst, pictures = play(engine, step)
    print(f"largest difference to eager: {worst} of 255")
    assert worst <= 1
    assert device.replays == len(SCRIPT)
    assert pictures == sum(len(batch) for batch in SCRIPT)


def test_the_frame_path_never_stops_the_host(cache: Path, device):
    """Prompts are encoded between frames; a frame itself waits for nothing."""
    preset = PUBLISHED[0]
    write_model(own_folder(cache, preset), preset.name)
    model = load_model(EngineConfig(preset.name), tell_nobody)
    engine = CudaGraphEngine(
        model.to(torch.device("cuda", 0), torch.float32), SIZE, torch.float32, (1,)
    )
    conditioning = engine.encode_prompt("a fox")
    device.stalls.clear()
    engine.translate([Job(picture(1), conditioning, Settings(0.3, 4))])
    engine.translate([Job(picture(2), engine.encode_prompt("a fox"), Settings(0.8, 4))])
    assert device.stalls == []
    engine.encode_prompt("a hut")
    assert device.stalls, "the text encoder runs on the card, and is waited for"


@pytest.mark.parametrize("preset", PUBLISHED, ids=lambda preset: preset.name)
def test_every_model_is_measured_by_one_command(
    preset: Preset, cache: Path, device, monkeypatch, capsys
):
    """``run.py bench --device cuda --model X`` prints a card's row, in half precision."""
    write_model(own_folder(cache, preset), preset.name)
    monkeypatch.setattr(cuda_build, "why_no_cuda", lambda: "")
    monkeypatch.setattr("pipeline.engines.cuda_graph.BATCH_SIZES", (1,))
    for module in (cuda_bench, cuda_graph):
        monkeypatch.setattr(module, "WARM_UP_RUNS", 1)
    time_batch = cuda_bench.time_batch
    monkeypatch.setattr(
        cuda_bench, "time_batch", lambda engine, size, _: time_batch(engine, size, 2)
    )
    arguments = f"bench --device cuda --model {preset.name} --size 64 --runs 20 --json"
    assert run.main(arguments.split()) == 0
    captured = capsys.readouterr()
    assert f"run.py: reading the U-Net of {preset.name}\n" in captured.err
    assert captured.err.count("capturing batches of 1") == 1
    row = json.loads(captured.out)
    assert (row["model"], row["size"], row["dtype"]) == (preset.name, "64x64", "float16")
    assert row["engine"] == "cuda-graph"
    stage = "encode" if preset.condition == "noised" else "control"
    names = ["frames to pixels", stage, "unet", "decode", "pixels to frames"]
    assert [list(batch["stages_ms"]) for batch in row["batches"]] == [names]


def test_a_found_card_runs_what_is_asked_for(cache: Path, device, monkeypatch):
    """Where a card is found, every model runs on it unless another engine is asked for."""
    preset = PUBLISHED[0]
    write_model(own_folder(cache, preset), preset.name)
    for module in (build, cuda_build):
        monkeypatch.setattr(module, "why_no_cuda", lambda: "")
    monkeypatch.setattr("pipeline.engines.cuda_graph.BATCH_SIZES", (1,))
    engine = build.build_engine(EngineConfig(preset.name, size=SIZE))
    assert (engine.name, engine.model) == ("cuda-graph", preset.name)
    engine.close()
    eager = build.build_engine(EngineConfig(preset.name, "eager", SIZE, threads=1))
    assert eager.name == "eager"
    assert np.ptp(eager.encode_prompt("a fox").tokens) > 0
