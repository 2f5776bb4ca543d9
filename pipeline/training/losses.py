"""The losses of training, each headed by where it comes from."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SSIM_WINDOW_PX = 7
SSIM_C1 = 0.01**2
SSIM_C2 = 0.03**2
PATCH_SIDE = 7
PATCH_STRIDE = 3
PATCH_SCALES = 3
"""Full size, half and quarter: patterns of up to about 28 pixels."""
PATCH_FILTERS = 16


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
    """(B, C, H, W) → (B, C, H - 6, W - 6): the mean in every window of seven by seven."""
    mean: Tensor = _SlideMean.apply(x)  # type: ignore[no-untyped-call]
    return mean


class _SlideMean(torch.autograd.Function):
    """``avg_pool2d`` with stride 1 in a quarter of its time, which was a third of a step's."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:  # noqa: ARG004
        return _sum_seven(_sum_seven(x, 3), 2).mul_(1.0 / SSIM_WINDOW_PX**2)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        # The adjoint of a sliding mean is the sliding mean of what lies around.
        return _SlideMean.forward(ctx, F.pad(gradient, (SSIM_WINDOW_PX - 1,) * 4))


def _sum_seven(x: Tensor, dim: int) -> Tensor:
    """Sums of seven neighbours, from sums of two and of four."""
    length = x.shape[dim]
    two = x.narrow(dim, 0, length - 1) + x.narrow(dim, 1, length - 1)
    four = two.narrow(dim, 0, length - 3) + two.narrow(dim, 2, length - 3)
    seven = four.narrow(dim, 0, length - 6) + two.narrow(dim, 4, length - 6)
    return seven.add_(x.narrow(dim, SSIM_WINDOW_PX - 1, length - 6))


def patch_grid(images: Tensor, targets: Tensor, patch_px: int, patches: int = 8) -> Tensor:
    """How much of the error repeats from patch to patch of a decoder that draws by patches.

    The error's mean at each place in a patch, over ``patches`` by ``patches`` neighbouring ones,
    squared. A texture that cannot be predicted is drawn as its mean, and a mean that depends on
    the place in the patch is seen as a grid. Ours; no source.

    Args:
        images: (B, C, H, W).
        targets: the same.
        patch_px: a side of the decoder's patch.
        patches: a side of the neighbourhood, in patches.

    Returns:
        A scalar, 0 for no grid.
    """
    error = F.pixel_unshuffle(images - targets, patch_px)
    mean = F.avg_pool2d(error, patches)
    # What all places of a patch share is colour, not a grid.
    return (mean - by_patch(mean, patch_px)).square().mean()


def by_patch(mean: Tensor, patch_px: int) -> Tensor:
    """The mean over the places of a patch of (B, C * patch_px**2, h, w), as large."""
    rows, _, height, width = mean.shape
    places = patch_px**2
    shared = mean.reshape(rows, -1, places, height, width).mean(dim=2)
    return shared.repeat_interleave(places, dim=1)


def patch_distance(images: Tensor, targets: Tensor, random: torch.Generator) -> Tensor:
    """How far the patches of two pictures are from being the same ones, wherever they lie.

    The sliced Wasserstein distance between their distributions, by random projections at three
    scales (arXiv 2203.11862, eq. 4 and 5). A texture that cannot be predicted costs nothing here
    as long as it is that texture, and its mean costs much.

    Args:
        images: (B, C, H, W) in [-1, 1], of at least 64 pixels a side.
        targets: the same.
        random: draws the projections.

    Returns:
        (B,), 0 for the same patches in any order.
    """
    rows, channels = images.shape[:2]
    pair = torch.cat([images, targets])
    distances = []
    for _ in range(PATCH_SCALES):
        filters = torch.randn(PATCH_FILTERS, channels, PATCH_SIDE, PATCH_SIDE, generator=random)
        filters = filters / filters.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        # Any of the places that the stride leaves out may be the first.
        top, left = torch.randint(0, PATCH_STRIDE, (2,), generator=random).tolist()
        found = F.conv2d(pair[..., top:, left:], filters, stride=PATCH_STRIDE).flatten(2)
        sorted_ = found.sort(dim=2).values
        distances.append((sorted_[:rows] - sorted_[rows:]).abs().mean(dim=(1, 2)))
        pair = F.avg_pool2d(pair, 2)
    return torch.stack(distances).mean(dim=0)


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
