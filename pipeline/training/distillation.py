"""The losses of knowledge distillation: a smaller network does as a larger one does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def output_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """L_OKD = E ||s_theta(x_t, t) - s_phi(x_t, t)||^2 (SDXS, eq. 6), a mean over elements."""
    return F.mse_loss(student, teacher.detach())


def feature_distillation(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """L_FKD = E sum_l ||f_theta^l(x_t, t) - f_phi^l(x_t, t)||^2 (SDXS, eq. 7).

    Each stage's term is a mean over its elements, divided by the mean square of the
    teacher's features: stages differ by orders of magnitude in scale, and one would drown
    the others.

    Args:
        student: (B, C_l, h_l, w_l), one a stage that is left.
        teacher: the same shapes, of the stages that they were cut from.
    """
    terms = [
        F.mse_loss(ours, theirs.detach()) / theirs.detach().square().mean().clamp_min(1e-8)
        for ours, theirs in zip(student, teacher, strict=True)
    ]
    return torch.stack(terms).sum()


def denoising(output: Tensor, target: Tensor) -> Tensor:
    """The loss of a diffusion model, eq. 14 of DDPM: what teacher and online model learn by."""
    return F.mse_loss(output, target)


def decoder_distance(images: Tensor, targets: Tensor, factor: int = 8) -> Tensor:
    """|| G(z) down 8x - x~ down 8x ||_1, the first term of L_VD (SDXS, section 3.1).

    Args:
        images: (B, 3, H, W) of the small decoder, in [-1, 1].
        targets: the same latents' pictures by the teacher's decoder.
        factor: how many pixels a side become one.
    """
    small = F.avg_pool2d(images, factor)
    return F.l1_loss(small, F.avg_pool2d(targets.detach(), factor))
