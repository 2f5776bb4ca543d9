"""The joined model: SDXS-shaped, conditioned on camera, noise and style."""

from __future__ import annotations

import pytest
import torch
from tiny_models import TINIEST, make_model
from torch import Tensor

from pipeline.config import TINY
from pipeline.tiny import TinyModel
from pipeline.translate import JoinedStep, StepInputs


def make_inputs(model: TinyModel, rows: int = 2, seed: int = 0) -> StepInputs:
    random = torch.Generator().manual_seed(seed)
    config = model.config
    weights = torch.rand(rows, len(config.styles), generator=random)
    tokens, pooled = model.styles(weights / weights.sum(1, keepdim=True))
    return StepInputs(
        torch.randint(0, 256, (rows, 64, 96, 3), dtype=torch.uint8, generator=random),
        torch.rand(rows, 3, 64, 96, generator=random) * 2 - 1,
        torch.randn(rows, config.autoencoder.latent_channels, 8, 12, generator=random),
        tokens,
        pooled,
        torch.rand(rows, 1, 1, 1, generator=random),
        torch.rand(rows, 1, 1, 1, generator=random),
    )


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


@pytest.mark.parametrize("field", ["images", "noise", "tokens", "pooled", "strength"])
def test_picture_depends_on_every_input(field: str) -> None:
    """A change of any one input changes the picture."""
    model = make_model()
    inputs = make_inputs(model, 1)
    other = getattr(make_inputs(model, 1, seed=1), field)
    before, _ = JoinedStep(model)(*inputs)
    after, _ = JoinedStep(model)(*inputs._replace(**{field: other}))
    assert (before.int() - after.int()).abs().float().mean() > 0.05


def test_rows_of_a_batch_are_alone() -> None:
    """Each row of a batch is what it would be by itself."""
    model = make_model()
    inputs = make_inputs(model, 3)
    images, memory = JoinedStep(model)(*inputs)
    for row in range(3):
        alone = JoinedStep(model)(*(value[row : row + 1] for value in inputs))
        assert difference(images[row], alone[0][0]) <= 1
        assert difference(memory[row], alone[1][0]) < 1e-5


def difference(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).abs().max())


def test_strength_mixes_latents() -> None:
    """At strength 0 the picture is the decoder's own of the camera, whatever the style."""
    model = make_model()
    inputs = make_inputs(model, 1)._replace(strength=torch.zeros(1, 1, 1, 1))
    images, pixels = JoinedStep(model)(*inputs)
    expected = model.decoder(*model.encoder(pixels))
    shown = (expected[0].permute(1, 2, 0) * 127.5 + 127.5).clamp(0, 255)
    assert (images[0].float() - shown).abs().max() <= 0.5 + 1e-3
    other = make_inputs(model, 1, seed=1)
    changed, _ = JoinedStep(model)(
        *inputs._replace(tokens=other.tokens, pooled=other.pooled, noise=other.noise)
    )
    assert torch.equal(images, changed)


def test_blend_of_styles_is_the_blend_of_their_vectors() -> None:
    """The style table is linear in its weights."""
    styles = make_model().styles
    weights = torch.tensor([[0.6, 0.4, 0.0, 0.0]])
    tokens, pooled = styles(weights)
    assert torch.allclose(tokens[0], 0.6 * styles.tokens[0] + 0.4 * styles.tokens[1])
    assert torch.allclose(pooled[0], 0.6 * styles.pooled[0] + 0.4 * styles.pooled[1])
