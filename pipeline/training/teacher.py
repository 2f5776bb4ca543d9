"""Stage ``teacher``: a multi-step, image-conditioned latent diffusion model.

It learns p(stylised photo | photo, style) by the denoising loss over all timesteps, and
sometimes without photo or style, so that it can be guided and given a control network. It
is the only stage that trains the style table; like a text encoder, that stays as it is
from here on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.training.denoiser import Condition, add_noise
from pipeline.training.distillation import denoising
from pipeline.training.draws import Draw
from pipeline.training.loop import Losses, Turn
from pipeline.training.recipes import TeacherRecipe
from pipeline.training.sampler import TIMESTEPS, Sampler
from pipeline.training.styled import StyledFamily

PREVIEW_STEPS = (1, 4, 16)


class TeacherStage:
    """The denoising loss."""

    def __init__(self, family: StyledFamily) -> None:
        family.load_encoder()
        self._family = family
        self._recipe = family.method.recipe("teacher", TeacherRecipe)
        self._teacher = family.build_denoiser(family.method.teacher)
        self._decoder = family.load_teacher_decoder()
        self.networks: dict[str, nn.Module] = {"teacher": self._teacher, "styles": family.styles}
        self.results = ("teacher", "styles")
        self.turns = [
            Turn.of("teacher", list(self.networks.values()), self.loss, self._recipe.training)
        ]

    def loss(self, draw: Draw) -> Losses:
        """One batch at uniformly drawn timesteps."""
        # 1. Pairs; some rows without photo, some without style.
        example = self._family.draw(draw, self._recipe.training.batch)
        assert example.clean is not None
        rows = len(example.clean)
        has_style = (draw.uniform(rows) >= self._recipe.style_drop).float()
        told = keep_style(example.told, has_style)
        # 2. Noise them.
        timesteps = draw.integers(0, TIMESTEPS, rows)
        noise = draw.normal(example.shape)
        x_t = add_noise(example.clean, noise, timesteps)
        # 3. Predict.
        output = self._teacher(x_t, timesteps, told)
        return {"loss": denoising(output, self._teacher.target(example.clean, noise, timesteps))}

    @torch.no_grad()
    def draw_pictures(self) -> list[Tensor]:
        """Held-out photos and targets, and what 1, 4 and 16 steps make of the photos."""
        example = self._family.preview()
        assert example.photos is not None
        assert example.targets is not None
        noise = self._family.noise(example)
        drawn = [
            Sampler(steps).draw(self._teacher, noise, example.guided) for steps in PREVIEW_STEPS
        ]
        rows = [self._family.decode(self._decoder, latents, example) for latents in drawn]
        return [example.photos, example.targets, *rows]


def keep_style(told: Condition, has_style: Tensor) -> Condition:
    """Zero the style of the rows where ``has_style`` (B,) is 0."""
    assert told.pooled is not None
    return Condition(
        told.tokens * has_style.view(-1, 1, 1), told.pooled * has_style.view(-1, 1), told.joined
    )
