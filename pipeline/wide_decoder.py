"""The image decoder of the embedded family's teacher and of the sketch: from latents alone."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.autoencoder import Block, Conv

WIDTHS = (96, 64, 32)
"""Features at an eighth, a quarter and a half of the picture's size."""
BLOCKS = (2, 2, 1)


class WideDecoder(nn.Module):
    """About three times the work of the small decoder, which also sees the photo's features."""

    def __init__(self, latent_channels: int, widths: tuple[int, int, int] = WIDTHS) -> None:
        super().__init__()
        self.stem = Conv(latent_channels, widths[0])
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width) for _ in range(count)))
            for width, count in zip(widths, BLOCKS, strict=True)
        )
        self.ups = nn.ModuleList(Conv(before, after) for before, after in pairwise(widths))
        self.out = Conv(widths[-1], 3 * 4)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, C, H/8, W/8) → (B, 3, H, W), about [-1, 1]; not clamped."""
        features = self.stages[0](self.stem(latents))
        for up, stage in zip(self.ups, list(self.stages)[1:], strict=True):
            features = stage(up(F.interpolate(F.relu(features), scale_factor=2.0)))
        return F.pixel_shuffle(self.out(F.relu(features)), 2)
