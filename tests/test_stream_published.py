"""Published models behind files and sessions: their own size, strength and prompts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from clips import read_clip, write_clip
from published_models import write_model
from test_stream_scheduler import Owner, running

import run
from pipeline.engines import Engine, Job, Size
from pipeline.engines.build import EngineConfig, build_engine
from pipeline.text_encoder import ClipText
from stream.controls import Controls
from stream.files import FileJob, translate_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in the published layout of sdxs-512, narrow."""
    return write_model(tmp_path_factory.mktemp("models") / "mine", "sdxs-512")


def test_pictures_and_videos_are_translated_at_the_models_own_size(
    folder: Path, tmp_path: Path
) -> None:
    """``run.py translate --model`` fits any shape into 512x512, by OpenVINO, sound kept."""
    src, dst = tmp_path / "src.mp4", tmp_path / "dst.mp4"
    write_clip(src, frames=3, size=(96, 62))
    flags = ["--model", str(folder), "--engine", "openvino", "--threads", "1"]
    assert run.main(["translate", str(src), str(dst), *flags, "--prompt", "a fox"]) == 0
    before, after = read_clip(src), read_clip(dst)
    assert (after.times_s, after.codecs) == (before.times_s, before.codecs)
    assert after.images[0].shape == before.images[0].shape
    assert np.abs(after.images[0].astype(int) - before.images[0]).mean() > 5
    cv2.imwrite(str(tmp_path / "src.png"), before.images[0])
    assert (
        run.main(["translate", str(tmp_path / "src.png"), str(tmp_path / "dst.png"), *flags]) == 0
    )
    assert cv2.imread(str(tmp_path / "dst.png")).shape == before.images[0].shape


@pytest.mark.parametrize(("asked", "used"), [(None, 0.8), (0.3, 0.3)])
def test_strength_is_the_models_own_unless_it_is_given(
    asked: float | None, used: float, folder: Path, tmp_path: Path
) -> None:
    """A file's pictures are drawn at the published control scale, or as was asked for."""
    config = EngineConfig(str(folder), "eager", Size(64, 64), threads=1)
    strengths: list[float] = []

    def make(size: Size) -> Engine:
        engine = build_engine(config)
        translate = engine.translate

        def noted(jobs: list[Job]) -> list[np.ndarray]:
            strengths.extend(job.settings.strength for job in jobs)
            return translate(jobs)

        engine.translate = noted  # type: ignore[method-assign, assignment]
        return engine

    cv2.imwrite(str(tmp_path / "src.png"), np.full((64, 64, 3), 90, np.uint8))
    translate_file(FileJob(tmp_path / "src.png", tmp_path / "dst.png", "a fox", asked), make)
    assert strengths == [used]


async def test_prompts_cross_fade_without_a_stall(folder: Path, monkeypatch) -> None:
    """While the text encoder works frames go on; then each is nearer to the new prompt by time."""
    now_s = 0.0
    monkeypatch.setattr("stream.feed.time", SimpleNamespace(perf_counter=lambda: now_s))
    entered, goes_on = threading.Event(), threading.Event()
    forward = ClipText.forward

    def forward_slowly(text: ClipText, prompts: Sequence[str]) -> tuple[object, object]:
        if "a hut" in prompts:
            entered.set()
            assert goes_on.wait(30)
        return forward(text, prompts)

    monkeypatch.setattr(ClipText, "forward", forward_slowly)
    drawn: list[np.ndarray] = []
    ends: list[np.ndarray] = []

    def make() -> Engine:
        engine = build_engine(EngineConfig(str(folder), "eager", Size(64, 64), threads=1))
        translate = engine.translate

        def noted(jobs: list[Job]) -> list[np.ndarray]:
            drawn.extend(job.conditioning.tokens for job in jobs)
            return translate(jobs)

        engine.translate = noted  # type: ignore[method-assign, assignment]
        return engine

    async with running(make) as engine:
        owner = Owner(engine, Controls("a fox"))
        await owner.render()
        asked = asyncio.create_task(engine.check_prompt("a hut"))
        assert await asyncio.to_thread(entered.wait, 30)
        for _ in range(3):
            await owner.render()
        goes_on.set()
        await asked
        owner.feed.controls = Controls("a hut", transition_s=0.6)
        for now_s in (0.0, 0.2, 0.4, 0.6, 0.8):  # noqa: B007 - read by the clock above
            await owner.render()
        await engine.when_idle(
            lambda each: ends.extend(
                each.encode_prompt(words).tokens for words in ("a fox", "a hut")
            )
        )
    start, goal = ends
    assert np.abs(goal - start).max() > 0.01
    for tokens, share in zip(drawn, [0, 0, 0, 0, 0, 1 / 3, 2 / 3, 1, 1], strict=True):
        assert np.allclose(tokens, start + share * (goal - start), atol=1e-5)
