"""Feature matching: structural similarity between feature maps, over whole maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

FeatureForm = Literal["ssim", "dists"]

C1 = 0.01**2
C2 = 0.03**2
"""SSIM's own constants (Wang et al. 2004, eq. 12, for a range of 1)."""
DISTS_C = 1e-6
"""DISTS' constant (arXiv 2004.07728, eq. 2 and 3)."""


def feature_matching(
    features: Sequence[Tensor],
    targets: Sequence[Tensor],
    weights: Sequence[float] | None = None,
    form: FeatureForm = "ssim",
) -> Tensor:
    """L_FM = sum_l w_l (1 - SSIM(f^l(x_theta), f^l(psi(x_phi)))) (SDXS, eq. 10).

    The paper prints a similarity; what is minimised is its distance from 1.

    Args:
        features: (B, C_l, h_l, w_l) of the student's pictures, one a layer.
        targets: the same layers of the teacher's pictures.
        weights: one a layer, or None for equal weights that sum to 1.
        form: ``"dists"`` separates texture from structure, which the authors found to do
            as well.

    Returns:
        A scalar; 0 for equal features, at most about 2.
    """
    if weights is None:
        weights = [1.0 / len(features)] * len(features)
    similar = map_ssim if form == "ssim" else map_dists
    terms = [
        weight * (1.0 - similar(ours, theirs.detach()).mean())
        for weight, ours, theirs in zip(weights, features, targets, strict=True)
    ]
    return torch.stack(terms).sum()


def map_ssim(x: Tensor, y: Tensor) -> Tensor:
    """SSIM (Wang et al. 2004, eq. 13) with one window: the whole map.

    Args:
        x: (B, C, h, w).
        y: the same.

    Returns:
        (B, C), 1 for equal maps.
    """
    mean_x, mean_y, variance_x, variance_y, covariance = moments(x, y)
    numerator = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    denominator = (mean_x**2 + mean_y**2 + C1) * (variance_x + variance_y + C2)
    return numerator / denominator


def map_dists(x: Tensor, y: Tensor) -> Tensor:
    """DISTS' two terms (arXiv 2004.07728, eq. 2 and 3), equally weighted; (B, C), 1 for equal."""
    mean_x, mean_y, variance_x, variance_y, covariance = moments(x, y)
    texture = (2 * mean_x * mean_y + DISTS_C) / (mean_x**2 + mean_y**2 + DISTS_C)
    structure = (2 * covariance + DISTS_C) / (variance_x + variance_y + DISTS_C)
    return (texture + structure) / 2.0


def moments(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Means, variances and covariance of each pair of maps, each (B, C), in float32."""
    x, y = x.float(), y.float()
    mean_x, mean_y = x.mean(dim=(2, 3)), y.mean(dim=(2, 3))
    away_x, away_y = x - mean_x[..., None, None], y - mean_y[..., None, None]
    variance_x, variance_y = away_x.square().mean(dim=(2, 3)), away_y.square().mean(dim=(2, 3))
    return mean_x, mean_y, variance_x, variance_y, (away_x * away_y).mean(dim=(2, 3))
