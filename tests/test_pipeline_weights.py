"""What the shipped weights do to a picture."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scenes import add_sensor_noise, distance, draw_scene, psnr_db

from pipeline.config import STYLES
from pipeline.engines import Image, Job, Settings, Size, TemporalState
from pipeline.engines.build import EngineConfig, build_engine

SIZE = Size(192, 144)

Translate = Callable[..., Image]


@pytest.fixture(scope="module")
def translate() -> Translate:
    """Translate one picture by the engine that a laptop gets."""
    engine = build_engine(EngineConfig(size=SIZE, threads=1))

    def call(
        image: Image, prompt: str = "stained-glass", state: TemporalState | None = None,
        **settings: float,
    ) -> Image:  # fmt: skip
        conditioning = engine.encode_prompt(prompt)
        job = Job(image, conditioning, Settings(**settings), state or TemporalState())  # type: ignore[arg-type]
        return engine.translate([job])[0]

    return call


@pytest.mark.parametrize("prompt", ["stained-glass", "ink-wash", "comic-ink"])
def test_picture_follows_the_camera(translate: Translate, prompt: str) -> None:
    """A camera that turns by 16 pixels moves the picture by 16 pixels."""
    left, right = (translate(draw_scene(SIZE, shift), prompt) for shift in (0, 16))
    inner = slice(24, -24)
    followed = distance(left[inner, 40:-24], right[inner, 24:-40])
    stayed = distance(left[inner, 24:-40], right[inner, 24:-40])
    assert stayed > 3
    assert followed < 0.35 * stayed


def test_change_is_seen_where_it_is(translate: Translate) -> None:
    """A hand that enters the scene changes the picture there, and hardly elsewhere."""
    before, after = draw_scene(SIZE), draw_scene(SIZE)
    after[48:96, 16:64] = (230, 190, 170)
    change = np.abs(translate(after).astype(int) - translate(before)).mean(axis=2)
    here, elsewhere = change[48:96, 16:64].mean(), change[:, 128:].mean()
    assert here > 5
    assert elsewhere < 0.25 * here


def test_styles_differ_by_more_than_noise(translate: Translate) -> None:
    """Two styles are further apart than two seeds, and than two exposures, of one."""
    image = draw_scene(SIZE)
    prompts = ["stained-glass", "ink-wash", "comic-ink", "watercolour"]
    pictures = [translate(image, prompt) for prompt in prompts]
    styles = min(
        distance(one, other) for i, one in enumerate(pictures) for other in pictures[i + 1 :]
    )
    seeds = max(distance(translate(image, p, seed=0), translate(image, p, seed=1)) for p in prompts)
    noisy = add_sensor_noise(image, 1)
    exposures = max(distance(translate(image, p), translate(noisy, p)) for p in prompts)
    assert styles > 5
    assert styles > 1.5 * max(seeds, exposures)


def test_blend_lies_between_its_styles(translate: Translate) -> None:
    """A blend is nearer to either style than they are to each other."""
    image = draw_scene(SIZE)
    one, other = translate(image, "ink-wash"), translate(image, "comic-ink")
    blend = translate(image, "ink-wash + comic-ink")
    assert 0 < distance(blend, one) < distance(one, other)
    assert 0 < distance(blend, other) < distance(one, other)


def test_strength_zero_is_the_camera(translate: Translate) -> None:
    """At strength 0 the picture is the camera's, to the autoencoder's precision."""
    image = draw_scene(SIZE)
    assert psnr_db(translate(image, strength=0.0), image) > 20.0


def test_strength_is_continuous(translate: Translate) -> None:
    """From 0 to 1 the picture leaves the camera steadily, without a leap."""
    image = draw_scene(SIZE)
    pictures = [translate(image, strength=step / 16) for step in range(17)]
    away = [distance(picture, pictures[0]) for picture in pictures]
    assert away == sorted(away)
    leaps = [distance(one, other) for one, other in pairwise(pictures)]
    assert max(leaps) < 4 * away[-1] / 16


def test_still_camera_flickers_less_with_stability(translate: Translate) -> None:
    """A webcam's noise on a still scene moves the picture less at 0.5 than at 0."""

    def flicker(stability: float) -> float:
        state = TemporalState()
        film = [
            translate(add_sensor_noise(draw_scene(SIZE), seed), state=state, stability=stability)
            for seed in range(10)
        ]
        return float(np.abs(np.diff(np.array(film[4:], int), axis=0)).mean())

    assert flicker(0.5) < 0.6 * flicker(0.0)


def test_scene_cut_leaves_no_ghost(translate: Translate) -> None:
    """The picture after a cut is the one that a new session would get."""
    state = TemporalState()
    for seed in range(3):
        translate(add_sensor_noise(draw_scene(SIZE), seed), state=state, stability=1.0)
    after = 255 - draw_scene(SIZE)
    seen = translate(after, state=state, stability=1.0)
    fresh = translate(after, stability=1.0)
    assert distance(seen, fresh) < 0.3


def test_moving_object_leaves_no_trail(translate: Translate) -> None:
    """Where an object has been, the picture is what it would be without a past."""
    state = TemporalState()
    for step in range(6):
        image = draw_scene(SIZE)
        left = 8 + 24 * step
        image[40:100, left : left + 24] = (250, 240, 30)
        seen = translate(image, state=state, stability=1.0)
        assert distance(seen, translate(image)) < 0.3


def grid_share(image: Image) -> float:
    """The share of an image's fine detail that repeats every four, or every two, pixels.

    Of its luma and of two differences of colours, where a grid of stripes would hide, the largest.
    """
    red, green, blue = np.moveaxis(image.astype(np.float32), 2, 0)
    return max(map(grid_share_of, ((red + green + blue) / 3, green - (red + blue) / 2, red - blue)))


def grid_share_of(levels: NDArray[np.float32]) -> float:
    """The same of one plane (H, W)."""
    detail = np.abs(np.fft.fft2(levels - levels.mean())) ** 2
    height, width = levels.shape
    # What repeats more slowly than every eight pixels is the picture, not its detail.
    detail[: height // 8] = detail[-(height // 8) :] = 0
    detail[:, : width // 8] = detail[:, -(width // 8) :] = 0
    lines = [detail[height // 4], detail[height // 2], detail[:, width // 4], detail[:, width // 2]]
    return float(sum(line.sum() for line in lines) / detail.sum())


@pytest.mark.parametrize("prompt", [style.name for style in STYLES])
def test_no_style_draws_the_grid_of_the_decoders_patches(translate: Translate, prompt: str) -> None:
    """A webcam's picture comes out without the four-pixel grid that two looks once had."""
    share = grid_share(translate(add_sensor_noise(draw_scene(SIZE), 1), prompt))
    print(f"{prompt}: {share:.3f}")
    # The two had 0.17 and 0.42 then, the other looks 0.03 to 0.08.
    assert share < 0.13
