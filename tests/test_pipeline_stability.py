"""What keeps consecutive frames alike, and what it must not do."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from pipeline.stability import hold_still

NOISE = 2.0 / 127.5


def stability(value: float) -> Tensor:
    return torch.full((1, 1, 1, 1), value)


def make_camera(seed: int = 0) -> Tensor:
    """A still picture of smooth shapes."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 8, 12, generator=random) * 1.6 - 0.8
    return torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bicubic").clamp(-1, 1)


def expose(picture: Tensor, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return picture + torch.randn(picture.shape, generator=random) * NOISE


def film(frames: list[Tensor], amount: float) -> list[Tensor]:
    memory, seen = frames[0], []
    for frame in frames:
        memory = hold_still(frame, memory, stability(amount))
        seen.append(memory)
    return seen


def flicker(frames: list[Tensor]) -> float:
    steps = [(after - before).abs().mean() for before, after in pairwise(frames)]
    return float(torch.stack(steps).mean())


def test_zero_stability_returns_the_frame() -> None:
    """At 0 nothing of the past is seen."""
    frame, memory = make_camera(1), make_camera(2)
    assert torch.equal(hold_still(frame, memory, stability(0.0)), frame)


@pytest.mark.parametrize(("amount", "most"), [(0.5, 0.25), (1.0, 0.1)])
def test_still_camera_flickers_less(amount: float, most: float) -> None:
    """Sensor noise on a still scene is averaged away, more so the higher the setting."""
    frames = [expose(make_camera(), seed) for seed in range(20)]
    assert flicker(film(frames, amount)[10:]) < most * flicker(frames[10:])


def test_still_picture_stays_true() -> None:
    """What is averaged is nearer to the scene than any one frame."""
    scene = make_camera()
    frames = [expose(scene, seed) for seed in range(20)]
    seen = film(frames, 1.0)[-1]
    assert (seen - scene).abs().mean() < 0.5 * (frames[-1] - scene).abs().mean()


@pytest.mark.parametrize("amount", [0.5, 1.0])
def test_scene_cut_leaves_no_ghost(amount: float) -> None:
    """The first frame after a cut is that frame itself."""
    before = make_camera()
    after = torch.where(before > 0, before - 0.8, before + 0.8)
    assert torch.equal(film([before, before, after], amount)[-1], after)


@pytest.mark.parametrize("amount", [0.5, 1.0])
def test_moving_object_leaves_no_trail(amount: float) -> None:
    """Where an object has been, the background is seen as it is, one frame later."""
    frames = []
    for step in range(8):
        frame = make_camera() * 0.3
        frame[..., 20:44, 8 + 8 * step : 24 + 8 * step] = 0.9
        frames.append(frame)
    for frame, seen in zip(frames, film(frames, amount), strict=True):
        assert (seen - frame).abs().max() < 1e-6


def test_motion_is_followed_where_it_is() -> None:
    """A part that moves does not stop the averaging of a part that does not."""
    scene = make_camera()
    frames = [expose(scene, seed) for seed in range(40)]
    for number, frame in enumerate(frames):
        frame[..., :16, :16] = 0.9 if number % 2 else -0.9
    seen = film(frames, 1.0)
    assert torch.equal(seen[-1][..., :16, :16], frames[-1][..., :16, :16])
    still = (..., slice(32, None), slice(48, None))
    assert (seen[-1] - scene)[still].abs().mean() < 0.5 * (frames[-1] - scene)[still].abs().mean()


def test_slow_change_of_light_is_followed() -> None:
    """A room that darkens slowly darkens on the screen too, within three levels."""
    frames = [make_camera() - number / 127.5 for number in range(40)]
    seen = film(frames, 0.5)
    assert (seen[-1] - frames[-1]).abs().max() < 6 / 127.5


def test_rows_have_their_own_setting() -> None:
    """Two sessions in one batch are held as each asked."""
    frame, memory = expose(make_camera(), 1), expose(make_camera(), 2)
    amounts = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    both = hold_still(frame.repeat(2, 1, 1, 1), memory.repeat(2, 1, 1, 1), amounts)
    assert torch.equal(both[:1], frame)
    assert torch.allclose(both[1:], hold_still(frame, memory, stability(1.0)))


def test_moving_edge_within_a_patch_is_followed() -> None:
    """Fine stripes that change places leave each patch's mean as it was, and are followed."""
    stripes = torch.tensor([0.5, 0.5, -0.5, -0.5]).repeat(24).expand(1, 3, 64, 96)
    scene = make_camera() * 0.3
    before, after = scene.clone(), scene.clone()
    before[..., 20:44, 20:44] = stripes[..., 20:44, 20:44]
    after[..., 20:44, 20:44] = -stripes[..., 20:44, 20:44]
    seen = film([before, before, after], 1.0)[-1]
    assert (seen - after).abs().max() < 1e-6


def test_parts_that_two_scenes_share_are_new_after_a_cut() -> None:
    """The grain of a wall that looks alike before and after a cut is the new one's."""
    before, after = expose(make_camera(), 1), expose(make_camera(), 2)
    after[..., :48, :] = -after[..., :48, :] + 0.9
    assert torch.equal(film([before, after], 1.0)[-1], after)


def test_strong_noise_is_not_taken_for_motion() -> None:
    """A dim room's noise of six levels is averaged as less is."""
    frames = [make_camera() + 3 * (expose(make_camera(), n) - make_camera()) for n in range(20)]
    assert flicker(film(frames, 0.5)[10:]) < 0.25 * flicker(frames[10:])
