"""Value ranges at the border between images and tensors."""

from __future__ import annotations

import torch

from pipeline.pixels import to_images, to_pixels


def test_every_level_comes_back() -> None:
    """uint8 → float → uint8 changes nothing, for all 256 levels."""
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(2, 16, 16, 3)
    pixels = to_pixels(images)
    assert pixels.shape == (2, 3, 16, 16)
    assert (pixels.min(), pixels.max()) == (-1.0, 1.0)
    assert torch.equal(to_images(pixels), images)


def test_what_lies_outside_is_clipped() -> None:
    """Pixels beyond [-1, 1] become black and white, and do not wrap around."""
    pixels = torch.tensor([-9.0, -1.01, 1.01, 9.0]).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    assert to_images(pixels)[0, ..., 0].flatten().tolist() == [0, 0, 255, 255]


def test_rows_and_colours_stay_in_place() -> None:
    """A pixel keeps its row, column and colour."""
    images = torch.zeros(1, 4, 6, 3, dtype=torch.uint8)
    images[0, 1, 5, 2] = 255
    pixels = to_pixels(images)
    assert pixels[0, 2, 1, 5] == 1.0
    assert (pixels == 1.0).sum() == 1
