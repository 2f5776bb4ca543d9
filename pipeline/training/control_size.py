"""Stage ``control-size``: the control network distilled into a smaller one (SDXS, section 3.1).

The control network is judged by what it does to the U-Net that it is attached to: the
features of the way up and the output, since those alone see its residuals. The small U-Net
is that of stage ``unet``, not yet one-step, and stays as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.lines import draw_lines
from pipeline.training import networks
from pipeline.training.block_removal import copy_remaining
from pipeline.training.denoiser import Denoiser, add_noise
from pipeline.training.distillation import feature_distillation, output_distillation
from pipeline.training.draws import Draw
from pipeline.training.family import Example, Family, freeze
from pipeline.training.features import record
from pipeline.training.loop import Losses, Turn
from pipeline.training.recipes import UNetRecipe
from pipeline.training.sampler import TIMESTEPS, Sampler
from pipeline.training.student import load_student
from pipeline.training.unet import find_clean, shared_stage_ends

PREVIEW_STEPS = 16


class ControlSizeStage:
    """What block removal left of the control network, taught by the whole."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._recipe = family.method.recipe("control-size", UNetRecipe)
        self._decoder = family.load_teacher_decoder()
        self._few_step_teacher = family.load_few_step_teacher()
        teacher, above = family.load_teacher(), family.load_teacher_control()
        self._teacher = Denoiser(teacher.unet, teacher.prediction, above)
        student = load_student(family, "unet")
        freeze(student)
        torch.manual_seed(self._recipe.training.seed)
        control = networks.build_control(family.method.student_control).to(family.device)
        copy_remaining(control, above)
        self._student = Denoiser(student.unet, student.prediction, control)
        ours, theirs = shared_stage_ends(self._student, self._teacher)
        kept = len(ours) // 2
        self._layers = ours[kept:], theirs[kept:]
        self.networks: dict[str, nn.Module] = {"control": control}
        self.results = ("control",)
        self.turns = [Turn.of("control", [control], self.loss, self._recipe.training)]

    def loss(self, draw: Draw) -> Losses:
        """One batch at uniformly drawn timesteps."""
        # 1. Pictures with their lines, noised.
        example = self._family.draw(draw, self._recipe.training.batch).blind
        x_0 = find_clean(example, draw, self._recipe.sampler, self._few_step_teacher)
        told = example.told.with_control(self._draw_lines(x_0, example))
        timesteps = draw.integers(0, TIMESTEPS, len(x_0))
        x_t = add_noise(x_0, draw.normal(example.shape), timesteps)
        # 2. Both networks, with the features of their ways up.
        ours, theirs = self._layers
        with torch.no_grad(), record(theirs) as wanted_features:
            wanted = self._teacher(x_t, timesteps, told)
        with record(ours) as features:
            output = self._student(x_t, timesteps, told)
        # 3. Compare.
        outputs = output_distillation(output, wanted)
        maps = feature_distillation(features, wanted_features)
        loss = outputs + self._recipe.feature_weight * maps
        return {"loss": loss, "output": outputs, "features": maps}

    @torch.no_grad()
    def _draw_lines(self, latents: Tensor, example: Example) -> Tensor:
        return draw_lines(self._family.decode(self._decoder, latents, example))

    @torch.no_grad()
    def draw_pictures(self) -> list[Tensor]:
        """Lines, and what both networks make of them in sixteen steps."""
        example = self._family.preview().blind
        noise = self._family.noise(example)
        latents = self._recipe.sampler.draw(self._few_step_teacher, noise, example.guided)
        lines = self._draw_lines(latents, example)
        told, untold = (condition.with_control(lines) for condition in example.guided)
        sampler = Sampler(PREVIEW_STEPS)
        models = (self._teacher, self._student)
        drawn = [sampler.draw(model, noise, (told, untold)) for model in models]
        rows = [self._family.decode(self._decoder, latents, example) for latents in drawn]
        return [lines * 2.0 - 1.0, *rows]
