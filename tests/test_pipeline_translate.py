"""The one function of a batch of frames: what each input does, and that rows are alone."""

from __future__ import annotations

import pytest
import torch
from tiny_models import make_model
from torch import Tensor

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
