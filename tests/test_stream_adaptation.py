"""The model does less while the delay is above its target: a real server, real peers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from engines import ColourEngine
from peers import Serving, flat, serving
from test_stream_session import ORANGE, expected

from pipeline.config import TINY_PRESET
from pipeline.engines import Engine, Image, Job, Size
from pipeline.errors import EngineError
from stream import adaptation, delay_target, rtp
from stream.config import ServerConfig
from stream.exposure import Exposure
from stream.server import ADAPTATION
from stream.stats import Travel

FULL = TINY_PRESET.default_size


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let seconds be tenths, and run everything with the corrections to aiortc."""
    monkeypatch.setattr(adaptation, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(adaptation, "WINDOW_S", 0.5)
    monkeypatch.setattr(adaptation, "SETTLE_S", 0.1)
    monkeypatch.setattr(delay_target, "FIRST_PATIENCE_S", 0.5)
    with rtp.installed():
        yield


class Machine:
    """Builds engines whose time grows with their pixels, and can be made slower and faster."""

    def __init__(self, full_s: float) -> None:
        self.full_s = full_s
        self.sizes: list[Size] = []
        self.broken: set[Size] = set()

    def build(self, size: Size | None = None) -> Engine:
        machine, size = self, size or FULL
        self.sizes.append(size)
        if size in self.broken:
            raise EngineError(f"no engine at {size}")

        class SizedEngine(ColourEngine):
            model = TINY_PRESET.name

            def translate(self, jobs: Sequence[Job]) -> list[Image]:
                share = self.size.width * self.size.height / (FULL.width * FULL.height)
                time.sleep(machine.full_s * share)
                return super().translate(jobs)

        return SizedEngine(size, max_batch=1)

    def make(self, model: str, size: Size | None) -> Engine:
        assert model == TINY_PRESET.name
        return self.build(size)


async def until(server: Serving, holds: Callable[[], bool]) -> None:
    """Wait, with the pictures that come, until something holds."""
    await server.peers[0].until(holds)


def step_of(server: Serving) -> int:
    target = server.app[ADAPTATION]._target
    return target.step if target is not None else 0


async def test_slow_model_works_smaller_and_back(caplog: pytest.LogCaptureFixture) -> None:
    """Above the target sizes go down one by one, the page is told, and back up afterwards."""
    machine = Machine(0.30)
    config = ServerConfig(target_ms=150)
    caplog.set_level(logging.INFO, "stream.adaptation")
    async with serving(machine.build, config, make_engine=machine.make) as server:
        peer = await server.connect(flat(ORANGE, (320, 240)), "?prompt=invert")
        await until(server, lambda: step_of(server) == 2)
        assert machine.sizes == [FULL, Size(256, 192), Size(192, 144)]
        told = await peer.until_message(
            lambda m: m.get("effort") and m["effort"]["size"] == "192x144"
        )
        assert told["effort"]["share"] == "1/1"
        assert (
            "192x144 instead of 320x240, to keep the delay below 150 ms" in told["effort"]["detail"]
        )
        await peer.until_colour(tuple(expected("invert", ORANGE)))
        machine.full_s = 0.02
        await until(server, lambda: step_of(server) == 0)
        peer.messages.clear()
        told = await peer.until_message(lambda m: m.get("type") == "stats")
        assert told["effort"] is None
        assert told["engine"]["size"] == str(FULL)
        assert str(server.app[ADAPTATION]) == "delay target 150 ms, step 0 of 4 (320x240)"
    assert "above 150 ms: the model goes from 320x240 to 256x192" in caplog.text
    assert "leaves room below 150 ms: the model goes from 256x192 to 320x240" in caplog.text


async def test_no_frame_is_lost_between_sizes() -> None:
    """While sizes change every picture is a translation, at the camera's size."""
    machine = Machine(0.2)
    async with serving(
        machine.build, ServerConfig(target_ms=100), make_engine=machine.make
    ) as server:
        peer = await server.connect(flat(ORANGE, (320, 240)), "?prompt=invert")
        await peer.until_colour(tuple(expected("invert", ORANGE)))
        before = len(peer.frames)
        await until(server, lambda: step_of(server) == 2)
        await peer.until_frames(3)
        wanted = expected("invert", ORANGE)
        for frame in peer.frames[before:]:
            assert (frame.width, frame.height) == (320, 240)
            image = frame.reformat(format="rgb24").to_ndarray()
            assert abs(image[120, 160].astype(int) - wanted).max() <= 16


@pytest.mark.parametrize("is_fixed", [True, False])
async def test_fixed_size_leaves_only_fewer_frames(is_fixed: bool) -> None:
    """With a size that was asked for, or that cannot be built, only the frames get fewer."""
    machine = Machine(0.05)
    make: Any = None if not is_fixed else machine.make
    config = ServerConfig(target_ms=40, is_size_fixed=is_fixed)
    async with serving(machine.build, config, make_engine=make) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        await until(server, lambda: step_of(server) > 0)
        concession = server.engine.concession
        assert concession is not None
        assert concession.effort.size == FULL
        assert concession.effort.share == Fraction(1, 2)
        assert "on 1 of 2 frames" in concession.detail
        session = server.session(peer)
        spared, came = session._feed.spared, session.stats.frames_in
        await peer.until_frames(15)
        came = session.stats.frames_in - came
        assert session._feed.spared - spared == pytest.approx(came / 2, abs=2)
        assert machine.sizes == [FULL]


async def test_without_a_target_nothing_happens() -> None:
    """--target-ms 0 leaves a model of any slowness as it is."""
    machine = Machine(0.2)
    async with serving(
        machine.build, ServerConfig(target_ms=0), make_engine=machine.make
    ) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        await peer.until_frames(8)
        assert machine.sizes == [FULL]
        assert str(server.app[ADAPTATION]) == "no delay target"


async def test_size_that_cannot_be_built_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    """A failed step is told in the log once; the model goes on at its size."""
    machine = Machine(0.2)
    machine.broken.add(Size(256, 192))
    async with serving(
        machine.build, ServerConfig(target_ms=100), make_engine=machine.make
    ) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        await until(server, lambda: len(machine.sizes) == 2)
        await peer.until_frames(8)
        assert machine.sizes == [FULL, Size(256, 192)]
        assert server.engine.status.is_ready
        assert caplog.text.count("cannot work at 256x192") == 1


async def test_model_of_somebody_else_begins_with_all_it_can() -> None:
    """Another swap goes first: the steps that were taken are forgotten."""
    machine = Machine(0.2)
    async with serving(
        machine.build, ServerConfig(target_ms=100), make_engine=machine.make
    ) as server:
        await server.connect(flat(ORANGE), "?prompt=invert")
        await until(server, lambda: step_of(server) == 2)
        machine.full_s = 0.01
        await server.engine.swap(lambda: ColourEngine(Size(128, 96)))
        await until(server, lambda: step_of(server) == 0 and server.engine.concession is None)
        ladder = server.app[ADAPTATION]._target.ladder
        assert [effort.size for effort in ladder] == [Size(128, 96)] * 3


async def test_one_slow_network_is_not_everybodys() -> None:
    """Of two sessions of which one is late by its own network, the model keeps its size."""
    machine = Machine(0.01)
    async with serving(
        machine.build, ServerConfig(target_ms=100), make_engine=machine.make
    ) as server:
        peers = [await server.connect(flat(ORANGE), "?prompt=invert") for _ in range(2)]
        for peer in peers:
            await peer.until_frames(5)
        stats = server.session(peers[0]).stats
        travelled = stats.travelled

        def late(travel: Travel) -> None:
            travelled(replace(travel, way_ms=travel.way_ms + 900))

        stats.travelled = late  # type: ignore[method-assign]
        before = stats.frames_out
        await until(server, lambda: stats.frames_out >= before + 40)
        assert step_of(server) == 0
        seen = server.app[ADAPTATION]._observe(time.perf_counter() - 0.5)
        assert seen is not None
        assert seen.way_ms < 100


async def test_end_of_the_server_ends_it() -> None:
    """Its task is gone when the server is, even in the middle of a step."""
    machine = Machine(0.2)
    async with serving(
        machine.build, ServerConfig(target_ms=100), make_engine=machine.make
    ) as server:
        await server.connect(flat(ORANGE), "?prompt=invert")
        await until(server, lambda: len(machine.sizes) >= 2)
    assert "adaptation" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_model_works_smaller_for_one_session_more() -> None:
    """Two sessions get their frames from a smaller model, which stays so while both are there."""
    machine = Machine(0.17)
    config = ServerConfig(target_ms=10_000, exposure=Exposure(min_fps=4))
    async with serving(machine.build, config, make_engine=machine.make) as server:
        first = await server.connect(flat(ORANGE))
        await first.until_frames(10)
        assert step_of(server) == 0
        await server.connect(flat(ORANGE))  # at the full size each would get less than 3 a second
        await until(server, lambda: step_of(server) > 0)
        frames = len(first.frames)
        await first.until(lambda: len(first.frames) > frames + 30)
        assert step_of(server) > 0
        assert machine.sizes[:2] == [FULL, TINY_PRESET.smaller_sizes[0]]
        async with server.http.delete(server.base + first.location) as response:
            assert response.status == 200
        server.peers.remove(first)
        await first.close()
        await until(server, lambda: step_of(server) == 0)
