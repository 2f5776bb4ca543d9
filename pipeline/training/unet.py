"""Stage ``unet``: block removal, then output and feature distillation (SDXS, eq. 6 to 8).

    L_KD = L_OKD + lambda_F L_FKD

The denoising loss, which BK-SDM has as a third term, is left out on purpose: the student is
to do as the teacher does, not as the data would have it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.training.denoiser import Denoiser, add_noise
from pipeline.training.distillation import feature_distillation, output_distillation
from pipeline.training.draws import Draw
from pipeline.training.family import Example, Family
from pipeline.training.features import record, stage_ends
from pipeline.training.loop import Losses, Turn
from pipeline.training.recipes import UNetRecipe
from pipeline.training.sampler import TIMESTEPS, Sampler
from pipeline.training.student import load_student

PREVIEW_STEPS = 16


class UNetStage:
    """What block removal left, taught by the whole."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._recipe = family.method.recipe("unet", UNetRecipe)
        self._teacher = family.load_teacher()
        self._few_step_teacher = family.load_few_step_teacher()
        torch.manual_seed(self._recipe.training.seed)
        self._student = load_student(family, None)
        self._decoder = family.load_teacher_decoder()
        self._layers = shared_stage_ends(self._student, self._teacher)
        self.networks: dict[str, nn.Module] = {"student": self._student}
        self.results = ("student",)
        self.turns = [Turn.of("student", [self._student], self.loss, self._recipe.training)]

    def loss(self, draw: Draw) -> Losses:
        """One batch at uniformly drawn timesteps."""
        # 1. Noised pictures: of the data, or of the teacher where there is none.
        example = self._family.draw(draw, self._recipe.training.batch)
        x_0 = find_clean(example, draw, self._recipe.sampler, self._few_step_teacher)
        timesteps = draw.integers(0, TIMESTEPS, len(x_0))
        x_t = add_noise(x_0, draw.normal(example.shape), timesteps)
        # 2. Both networks, with their features.
        ours, theirs = self._layers
        with torch.no_grad(), record(theirs) as wanted_features:
            wanted = self._teacher(x_t, timesteps, example.told)
        with record(ours) as features:
            output = self._student(x_t, timesteps, example.told)
        # 3. Compare.
        outputs = output_distillation(output, wanted)
        maps = feature_distillation(features, wanted_features)
        loss = outputs + self._recipe.feature_weight * maps
        return {"loss": loss, "output": outputs, "features": maps}

    @torch.no_grad()
    def draw_pictures(self) -> list[Tensor]:
        """The teacher above the student, both in sixteen steps."""
        example = self._family.preview()
        noise = self._family.noise(example)
        sampler = Sampler(PREVIEW_STEPS)
        drawn = [
            sampler.draw(model, noise, example.guided) for model in (self._teacher, self._student)
        ]
        return [self._family.decode(self._decoder, latents, example) for latents in drawn]


def find_clean(example: Example, draw: Draw, sampler: Sampler, teacher: Denoiser) -> Tensor:
    """The latents (B, C, h, w) of the data's pictures, or of the teacher's where it has none."""
    if example.clean is not None:
        return example.clean
    return sampler.draw(teacher, draw.normal(example.shape), example.guided)


def shared_stage_ends(
    student: Denoiser, teacher: Denoiser
) -> tuple[list[nn.Module], list[nn.Module]]:
    """The ends of the stages that both networks have, down and then up, in the order they run."""
    kept = len(student.unet.down_blocks)
    cut = len(teacher.unet.up_blocks) - kept
    ours = [*student.unet.down_blocks, *student.unet.up_blocks]
    theirs = [*list(teacher.unet.down_blocks)[:kept], *list(teacher.unet.up_blocks)[cut:]]
    return stage_ends(ours), stage_ends(theirs)
