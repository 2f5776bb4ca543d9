"""The matte: no trail where something moves, steady where nothing does, sharp at edges."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.matte import Matte, refine
from pipeline.person_mask import SIDE_PX, Mask

WIDTH, HEIGHT = 640, 480
SQUARE = (SIDE_PX, SIDE_PX)


def figure(x: int) -> Mask:
    """Draw where a person is: head and shoulders, (HEIGHT, WIDTH)."""
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.ellipse(drawn, (x, 190), (55, 75), 0, 0, 360, 255, -1)
    cv2.ellipse(drawn, (x, 480), (150, 200), 0, 0, 360, 255, -1)
    return drawn.astype(np.float32) / 255


def paint(truth: Mask, seed: int) -> NDArray[np.uint8]:
    """Paint that person before a patterned wall, with a sensor's noise; RGB."""
    rng = np.random.default_rng(3)
    wall = cv2.resize(rng.integers(30, 120, (9, 12, 3), np.uint8), (WIDTH, HEIGHT))
    noise = np.random.default_rng(seed).normal(0, 2, wall.shape)
    picture = np.where(truth[..., None] > 0.5, (225, 180, 150), wall) + noise
    return np.clip(picture, 0, 255).astype(np.uint8)


def coarse(truth: Mask) -> Mask:
    """Return what a good segmenter makes of it: small, and soft at its edge."""
    return cv2.blur(cv2.resize(truth, SQUARE, interpolation=cv2.INTER_AREA), (5, 5))


def small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cv2.resize(picture, SQUARE, interpolation=cv2.INTER_AREA)


def luma(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def overlap(mask: Mask, truth: Mask) -> float:
    """Return the intersection over the union."""
    ours, theirs = mask > 0.5, truth > 0.5
    return float((ours & theirs).sum() / (ours | theirs).sum())


@pytest.mark.parametrize("step_px", [6, 24, 60])
def test_person_who_moves_has_no_trail(step_px: int) -> None:
    """At each frame of a fast move the matte is where the person is; a plain average is not."""
    matte = Matte()
    average: Mask | None = None
    kept, averaged = [], []
    for number in range(8):
        truth = figure(120 + number * step_px)
        picture = paint(truth, number)
        mask = coarse(truth)
        average = mask if average is None else 0.2 * mask + 0.8 * average
        kept.append(overlap(refine(matte.follow(small(picture), mask), luma(picture)), truth))
        averaged.append(overlap(refine(average, luma(picture)), truth))
    print(f"{step_px} px a frame: {min(kept):.3f}, averaged {min(averaged):.3f}")
    assert min(kept) > 0.97
    assert min(averaged) < 0.94


def test_mask_that_wavers_over_a_still_picture_is_steadied() -> None:
    """Doubts about a still picture are averaged away; its noise is not taken for motion."""
    rng = np.random.default_rng(1)
    truth = figure(300)
    matte = Matte()
    raw, held = [], []
    for number in range(30):
        doubt = cv2.resize(rng.uniform(-0.15, 0.15, (16, 16)).astype(np.float32), SQUARE)
        mask = np.clip(coarse(truth) + doubt, 0, 1)
        raw.append(mask)
        held.append(matte.follow(small(paint(truth, number)), mask))
    flicker_raw = np.abs(np.diff(raw[10:], axis=0)).mean()
    flicker_held = np.abs(np.diff(held[10:], axis=0)).mean()
    print(f"flicker {flicker_raw:.4f}, held {flicker_held:.4f}")
    assert flicker_held < 0.4 * flicker_raw


def test_who_comes_in_before_an_equal_wall_is_followed_at_once() -> None:
    """A mask that changes by much is believed, though no colour says that anything moved."""
    grey = np.full((*SQUARE, 3), 128, np.uint8)
    matte = Matte()
    matte.follow(grey, np.zeros(SQUARE, np.float32))
    there = coarse(figure(300))
    shown = matte.follow(grey, there)
    assert overlap(shown, there) > 0.99


def test_edge_is_drawn_to_the_picture_s_own() -> None:
    """Refined at the picture's size, a coarse mask errs less at the edge than enlarged."""
    truth = figure(300)
    picture = paint(truth, 0)
    mask = coarse(truth)
    refined = refine(mask, luma(picture))
    enlarged = cv2.resize(mask, (WIDTH, HEIGHT))
    wrong_refined = float(np.abs(refined - truth).mean())
    wrong_enlarged = float(np.abs(enlarged - truth).mean())
    print(f"mean error {wrong_refined:.5f}, only enlarged {wrong_enlarged:.5f}")
    assert refined.shape == (HEIGHT, WIDTH)
    assert refined.min() >= 0
    assert refined.max() <= 1
    assert wrong_refined < 0.5 * wrong_enlarged
