"""Pictures as a camera sees them, drawn."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.engines import Image, Size

MARGIN_PX = 64


def draw_scene(size: Size, shift_px: int = 0, seed: int = 0) -> Image:
    """A lit wall, a round face, a lamp and books; ``shift_px`` moves the camera to the right."""
    random = np.random.default_rng(seed)
    width, height = size.width + 2 * MARGIN_PX, size.height
    light = np.linspace(70, 190, width)[None, :, None] + np.linspace(30, -30, height)[:, None, None]
    canvas = np.clip(light * np.array([1.0, 0.9, 0.75]), 0, 255).astype(np.uint8)
    unit = height // 12
    for _ in range(14):
        x, y = int(random.integers(width)), int(random.integers(height))
        colour = [int(level) for level in random.integers(20, 240, 3)]
        cv2.rectangle(canvas, (x, y), (x + 2 * unit, y + 3 * unit), colour, -1)
    face = (width // 2, height // 2)
    cv2.circle(canvas, face, 3 * unit, (225, 180, 150), -1, cv2.LINE_AA)
    for side in (-1, 1):
        cv2.circle(canvas, (face[0] + side * unit, face[1] - unit), unit // 2, (30, 20, 20), -1)
    cv2.ellipse(canvas, (face[0], face[1] + unit), (unit, unit // 2), 0, 0, 180, (120, 30, 40), 2)
    left = MARGIN_PX + shift_px
    return np.ascontiguousarray(cv2.GaussianBlur(canvas, (3, 3), 0)[:, left : left + size.width])


def add_sensor_noise(image: Image, seed: int, sigma: float = 2.0) -> Image:
    """The same picture, as another exposure of a webcam shows it; sigma in levels of 255."""
    noise = np.random.default_rng(seed).normal(0.0, sigma, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def distance(image: Image, other: Image) -> float:
    """The mean absolute difference, in levels of 255."""
    return float(np.abs(image.astype(np.int16) - other).mean())


def psnr_db(image: Image, other: Image) -> float:
    error = ((image.astype(np.float64) - other) ** 2).mean()
    return float(10.0 * np.log10(255.0**2 / max(error, 1e-9)))
