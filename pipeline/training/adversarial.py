"""The losses of adversaries, and the two discriminators."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def tell_apart(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """The discriminator's hinge loss (arXiv 1705.02894, eq. 3), a mean over its heads."""
    terms = [
        F.relu(1.0 - yes).mean() + F.relu(1.0 + no).mean()
        for yes, no in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).mean()


def deceive(fake: Sequence[Tensor]) -> Tensor:
    """The generator's hinge loss (arXiv 1705.02894, eq. 4), a mean over the heads."""
    return torch.stack([-no.mean() for no in fake]).mean()


def slope_at_real(said: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """R1 (arXiv 1801.04406, eq. 9 without its factor): keeps an equal match from oscillating.

    Args:
        said: what the discriminator says of what is real.
        inputs: (B, ...) each: what it looked at, requiring a gradient.
    """
    total = torch.stack([yes.flatten(1).mean(dim=1).sum() for yes in said]).sum()
    slopes = torch.autograd.grad(total, list(inputs), create_graph=True)
    return torch.stack([slope.square().flatten(1).sum(dim=1).mean() for slope in slopes]).mean()


class PatchDiscriminator(nn.Module):
    """Says of every patch of a picture whether the teacher's decoder drew it (arXiv 1611.07004).

    No normalisation, as in the decoder that it teaches.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = (3, channels, 2 * channels, 4 * channels)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [-1, 1] → one map (B, 1, H/8, W/8)."""
        return [self.layers(pixels)]


class FeatureDiscriminator(nn.Module):
    """Small heads on the feature maps of a frozen network (Projected GAN, arXiv 2111.01007).

    StyleGAN-T and ADD take DINO's features; here they are those of the teacher's U-Net, as
    in latent adversarial distillation (arXiv 2403.12015).
    """

    def __init__(self, channels: Sequence[int], width: int = 64) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(count, width, 3, 1, 1),
                nn.GroupNorm(8, width),
                nn.LeakyReLU(0.2),
                nn.Conv2d(width, 1, 1),
            )
            for count in channels
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """(B, C_l, h_l, w_l) each → (B, 1, h_l, w_l) each."""
        return [head(maps) for head, maps in zip(self.heads, features, strict=True)]
