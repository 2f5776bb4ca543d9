"""The student: cut from the teacher, or as the stage before left it."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from pipeline.schedule import LAST_TIMESTEP
from pipeline.training.block_removal import copy_remaining
from pipeline.training.denoiser import Condition, Denoiser
from pipeline.training.family import Family
from pipeline.training.low_rank import add_low_rank, merge_low_rank
from pipeline.training.recipes import FinishRecipe
from pipeline.training.sampler import Sampler

logger = logging.getLogger(__name__)


def load_student(family: Family, stage: str | None) -> Denoiser:
    """The student as ``stage`` left it; with None, what block removal leaves of the teacher."""
    student = family.build_denoiser(family.method.student)
    if stage is None:
        removal = copy_remaining(student.unet, family.load_teacher().unet)
        percent = 100 * removal.kept / (removal.kept + removal.fresh)
        logger.info("block removal: %.1f %% of the student's weights are the teacher's", percent)
    elif stage == "finish":
        # The finish left only the update of what came before it.
        student = load_student(family, family.chain.before("finish"))
        updates = add_low_rank(student.unet, family.method.recipe("finish", FinishRecipe).rank)
        family.chain.load("finish", {"updates": updates})
        merge_low_rank(student.unet)
    else:
        family.chain.load(stage, {"student": student})
    return student


def draw_in_one_step(student: Denoiser, noise: Tensor, told: Condition) -> Tensor:
    """x_theta(eps): the one call at t = 999 → clean latents (B, C, h, w)."""
    timesteps = torch.full((len(noise),), LAST_TIMESTEP, device=noise.device)
    return student.predict_x_0(noise, timesteps, told)


@torch.no_grad()
def draw_below(
    student: Denoiser, teacher: Denoiser, sampler: Sampler, family: Family, decoder: nn.Module
) -> list[Tensor]:
    """What the few-step teacher draws and, below it, the student in one step from the same noise.

    Returns:
        Two rows of the family's preview, (N, 3, H, W) in about [-1, 1].
    """
    example = family.preview()
    noise = family.noise(example)
    drawn = (
        sampler.draw(teacher, noise, example.guided),
        draw_in_one_step(student, noise, example.told),
    )
    return [family.decode(decoder, latents, example) for latents in drawn]
