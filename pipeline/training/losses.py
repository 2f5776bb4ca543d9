"""The losses of training, each headed by where it comes from."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SSIM_WINDOW_PX = 7
SSIM_C1 = 0.01**2
SSIM_C2 = 0.03**2


def ssim(images: Tensor, targets: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004, eq. 13) with a square window, a mean a picture.

    Args:
        images: (B, C, H, W) in [0, 1].
        targets: the same.

    Returns:
        (B,), 1 for equal pictures.
    """
    x, y = images.contiguous(), targets.contiguous()
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = slide_mean(
        torch.cat([x, y, x * x, y * y, x * y])
    ).chunk(5)
    variance_x, variance_y = mean_xx - mean_x**2, mean_yy - mean_y**2
    covariance = mean_xy - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + SSIM_C1) * (2 * covariance + SSIM_C2)
    denominator = (mean_x**2 + mean_y**2 + SSIM_C1) * (variance_x + variance_y + SSIM_C2)
    return (numerator / denominator).mean(dim=(1, 2, 3))


def slide_mean(x: Tensor) -> Tensor:
    """The mean in every window, along rows and then along columns: a third of the work."""
    return F.avg_pool2d(F.avg_pool2d(x, (1, SSIM_WINDOW_PX), 1), (SSIM_WINDOW_PX, 1), 1)


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of (B, C, H, W) in [0, 1], in dB, one a picture."""
    return -10.0 * torch.log10(((images - targets) ** 2).mean(dim=(1, 2, 3)).clamp_min(1e-10))


def unit_moments(latents: Tensor) -> Tensor:
    """How far each channel of (B, C, h, w) is from mean 0 and variance 1.

    Keeps the latents on the scale that the noise schedule assumes, as the factor 0.18215
    does in Stable Diffusion (arXiv 2112.10752, appendix G).
    """
    mean = latents.mean(dim=(0, 2, 3))
    std = latents.std(dim=(0, 2, 3))
    return (mean**2).mean() + ((std - 1.0) ** 2).mean()
