"""Segmented score distillation: where the offline and the online score pull the student."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def score_distillation(x_0: Tensor, offline_x_0: Tensor, online_x_0: Tensor) -> Tensor:
    """A loss whose gradient at ``x_0`` is that of L_IKL (Diff-Instruct, arXiv 2305.18455, eq. 3).

    In SDXS' Algorithm 1, F(t, x_t) = w(t) (s_phi(x_t, t) - s_p_t(x_t)) dx_t/dtheta, with s
    the predicted noise. Since eps = (x_t - alpha x_0) / sigma, the difference of the two
    models' noises is alpha / sigma times that of their x_0, the other way round. The weight
    w(t) is DMD's (arXiv 2311.18828, eq. 8): it leaves the difference of x_0, divided by how
    far the offline model is from ``x_0``, so that every timestep pulls about equally.

    Args:
        x_0: (B, C, h, w) of the student, with its gradient.
        offline_x_0: what the offline model makes of x_0 with noise added.
        online_x_0: what the online model makes of the same.

    Returns:
        Half the mean square of the gradient; its value says little, its gradient is exact.
    """
    with torch.no_grad():
        away = (x_0 - offline_x_0).abs().mean(dim=(1, 2, 3), keepdim=True)
        gradient = (online_x_0 - offline_x_0) / away.clamp_min(1e-4)
        wanted = x_0 - gradient
    return 0.5 * (x_0 - wanted).square().mean()


@dataclass(frozen=True)
class Segments:
    """How alpha and lambda_FM fall while Algorithm 1 goes on: in a straight line."""

    first_alpha: float
    last_alpha: float
    first_matching_weight: float
    last_matching_weight: float

    def alpha(self, progress: float) -> float:
        """The share of the timesteps that score distillation has; progress is in [0, 1]."""
        return self.first_alpha + (self.last_alpha - self.first_alpha) * progress

    def matching_weight(self, progress: float) -> float:
        """lambda_FM."""
        first, last = self.first_matching_weight, self.last_matching_weight
        return first + (last - first) * progress
