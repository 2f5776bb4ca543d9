"""The measurement of a card runs from start to end on a simulated one."""

from __future__ import annotations

import json

import pytest
import torch
from cuda_models import make_step, to_cuda_model
from cuda_sessions import running_device

from pipeline.config import Size
from pipeline.engines import cuda_bench
from pipeline.engines.cuda_graph import CudaGraphEngine
from pipeline.errors import ConfigError


@pytest.fixture
def device(monkeypatch):
    """A running simulated device, with frames converted in plain torch."""
    with running_device(monkeypatch) as running:
        yield running


def start(device) -> CudaGraphEngine:
    """Start a small engine."""
    model = to_cuda_model(device.module(make_step("plain")))
    return CudaGraphEngine(model, Size(64, 64), torch.float32, (1, 2))


def test_a_measurement_says_all_that_a_row_needs(device):
    """Card, versions, model, size, each batch's replay, eager, frame and stage times, memory."""
    result = cuda_bench.bench_cuda(lambda: start(device), runs=20)
    facts = json.loads(json.dumps(result.to_dict()))
    assert facts["gpu"] == "a simulated card"
    assert facts["size"] == "64x64"
    assert facts["dtype"] == "float32"
    assert [row["batch"] for row in facts["batches"]] == [1, 2]
    for row in facts["batches"]:
        assert 0 < row["replay_ms_p50"] <= row["replay_ms_p95"]
        assert 0 < row["latency_ms_p50"] <= row["latency_ms_p95"]
        assert row["eager_ms_p50"] > 0
        assert row["largest_difference"] in (0, 1)
        assert row["images_per_s"] > 0
        names = ["frames to pixels", "encode", "unet", "decode", "pixels to frames"]
        assert list(row["stages_ms"]) == names
        assert all(ms > 0 for ms in row["stages_ms"].values())
    card = result.to_card()
    assert "small 64x64 float32 on a simulated card" in card
    assert card.count("\n| ") == 3
    assert card.count(" of 255 |") == 2


def test_a_stage_computes_what_it_computes_in_a_step(device):
    """A stage's own graph reads the inputs that the step gave it."""
    engine = start(device)
    seen = []
    handle = engine.stages["decode"].register_forward_hook(
        lambda module, args, result: seen.append(result)
    )
    with engine.on_stream():
        engine.run_eagerly(2)
        stages = dict(cuda_bench.watch_stages(engine, 2))
        again = stages["decode"]()
        assert len(seen) == 3
        assert torch.equal(again.cpu(), seen[0].cpu())
    handle.remove()


def test_without_graphs_eager_is_measured(device):
    """A card on which graphs are off gets its row all the same, without a replay."""
    engine = start(device)
    engine._turn_off([1, 2], "asked for by this test")
    result = cuda_bench.bench_cuda(lambda: engine, runs=20)
    assert result.engine == "cuda-eager"
    assert [row.replay_ms_p50 for row in result.batches] == [None, None]
    assert [row.largest_difference for row in result.batches] == [None, None]
    assert "| 1 | — | — |" in result.to_card()


def test_too_few_runs_are_refused(device):
    """A 95th percentile needs twenty values."""
    with pytest.raises(ConfigError, match="20 or more"):
        cuda_bench.bench_cuda(lambda: start(device), runs=19)
