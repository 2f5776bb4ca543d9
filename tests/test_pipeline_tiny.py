"""The joined model: SDXS-shaped, conditioned on camera, noise and style."""

from __future__ import annotations

import torch
from tiny_models import TINIEST, make_model

from pipeline.config import TINY
from pipeline.tiny import TinyModel


def test_unet_has_the_shape_of_sdxs() -> None:
    """No middle stage, one resnet a stage going down, attention somewhere; a few MB in all."""
    model = TinyModel(TINY)
    assert model.unet.mid_block is None
    assert [len(block.resnets) for block in model.unet.down_blocks] == [1, 1]
    assert any("attn2" in name for name, _ in model.unet.named_modules())
    parameters = sum(value.numel() for value in model.parameters())
    assert 0.5e6 < parameters < 4e6


def test_fresh_model_does_not_hear_its_noise() -> None:
    """Training starts from a map of the camera alone."""
    torch.manual_seed(0)
    model = TinyModel(TINIEST)
    latents = torch.randn(1, TINIEST.autoencoder.latent_channels, 8, 8)
    style = model.styles(torch.eye(len(TINIEST.styles))[:1])
    with torch.no_grad():
        outputs = [
            model.predict(noise, latents, *style) - model.one_step.sample_weight * noise
            for noise in torch.randn(2, *latents.shape)
        ]
    assert torch.allclose(outputs[0], outputs[1], atol=1e-5)


def test_blend_of_styles_is_the_blend_of_their_vectors() -> None:
    """The style table is linear in its weights."""
    styles = make_model().styles
    weights = torch.tensor([[0.6, 0.4, 0.0, 0.0]])
    tokens, pooled = styles(weights)
    assert torch.allclose(tokens[0], 0.6 * styles.tokens[0] + 0.4 * styles.tokens[1])
    assert torch.allclose(pooled[0], 0.6 * styles.pooled[0] + 0.4 * styles.pooled[1])
