"""The small autoencoder: shapes, edges, and what the latents decide."""

from __future__ import annotations

import pytest
import torch
from tiny_models import TINIEST, make_model


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 80)])
def test_shapes(height: int, width: int) -> None:
    """Latents lie at an eighth of the picture's size, the skip at a quarter."""
    model = make_model()
    latents, skip = model.encoder(torch.randn(2, 3, height, width))
    assert latents.shape == (2, TINIEST.autoencoder.latent_channels, height // 8, width // 8)
    assert skip.shape == (2, TINIEST.autoencoder.channels[0], height // 4, width // 4)
    assert model.decoder(latents, skip).shape == (2, 3, height, width)


def test_flat_picture_has_no_rim() -> None:
    """A picture of one colour comes out the same at its border as in its middle."""
    model = make_model()
    latents, skip = model.encoder(torch.full((1, 3, 64, 64), 0.3))
    pixels = model.decoder(latents, skip)
    tiles = pixels.reshape(1, 3, 16, 4, 16, 4)
    assert torch.allclose(tiles, tiles[:, :, 8:9, :, 8:9, :].expand_as(tiles), atol=1e-5)


def test_moved_picture_moves() -> None:
    """A picture moved by one latent comes out moved by as much."""
    model = make_model()
    scene = torch.randn(1, 3, 64, 408)
    latents, skip = model.encoder(scene[..., :400])
    left = model.decoder(latents, skip)
    latents, skip = model.encoder(scene[..., 8:])
    moved = model.decoder(latents, skip)
    inner = slice(128, -128)
    assert torch.allclose(left[..., 8:][..., inner], moved[..., :-8][..., inner], atol=1e-5)


def test_picture_depends_on_latents_and_on_skip() -> None:
    """Neither way from the encoder to the decoder is dead."""
    model = make_model()
    latents, skip = model.encoder(torch.randn(1, 3, 64, 64))
    picture = model.decoder(latents, skip)
    assert (model.decoder(latents + 1.0, skip) - picture).abs().mean() > 1e-3
    assert (model.decoder(latents, skip + 1.0) - picture).abs().mean() > 1e-3
