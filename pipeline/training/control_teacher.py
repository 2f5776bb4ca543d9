"""Stage ``control-teacher``: the multi-step control network (arXiv 2302.05543).

Only the embedded family trains it; Stable Diffusion's have been trained elsewhere. The
teacher stays as it is and is not shown the photo, so that the lines are all it has to go by.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.lines import draw_lines
from pipeline.training import networks
from pipeline.training.block_removal import copy_remaining
from pipeline.training.denoiser import Denoiser, add_noise
from pipeline.training.distillation import denoising
from pipeline.training.draws import Draw
from pipeline.training.loop import Losses, Turn
from pipeline.training.recipes import ControlTeacherRecipe
from pipeline.training.sampler import TIMESTEPS, Sampler
from pipeline.training.styled import StyledFamily

PREVIEW_STEPS = 16


class ControlTeacherStage:
    """The denoising loss, with lines of the wanted picture as the condition."""

    def __init__(self, family: StyledFamily) -> None:
        self._family = family
        self._recipe = family.method.recipe("control-teacher", ControlTeacherRecipe)
        self._decoder = family.load_teacher_decoder()
        teacher = family.load_teacher()
        torch.manual_seed(self._recipe.training.seed)
        control = networks.build_control(family.method.teacher_control).to(family.device)
        copy_remaining(control, teacher.unet)
        self._teacher = Denoiser(teacher.unet, teacher.prediction, control)
        self.networks: dict[str, nn.Module] = {"control": control}
        self.results = ("control",)
        self.turns = [Turn.of("control", [control], self.loss, self._recipe.training)]

    def loss(self, draw: Draw) -> Losses:
        """One batch at uniformly drawn timesteps."""
        example = self._family.draw(draw, self._recipe.training.batch, photo_drop=1.0)
        assert example.clean is not None
        assert example.targets is not None
        timesteps = draw.integers(0, TIMESTEPS, len(example.clean))
        noise = draw.normal(example.shape)
        x_t = add_noise(example.clean, noise, timesteps)
        told = example.told.with_control(draw_lines(example.targets))
        output = self._teacher(x_t, timesteps, told)
        return {"loss": denoising(output, self._teacher.target(example.clean, noise, timesteps))}

    @torch.no_grad()
    def draw_pictures(self) -> list[Tensor]:
        """Held-out targets, their lines, and what sixteen steps make of the lines."""
        example = self._family.preview().blind
        assert example.targets is not None
        lines = draw_lines(example.targets)
        guided = tuple(told.with_control(lines) for told in example.guided)
        sampler = Sampler(PREVIEW_STEPS)
        latents = sampler.draw(self._teacher, self._family.noise(example), (guided[0], guided[1]))
        return [
            example.targets,
            lines * 2.0 - 1.0,
            self._family.decode(self._decoder, latents, example),
        ]
