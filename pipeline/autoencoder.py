"""The small autoencoder of ``sdxs-tiny``, where diffusers' AutoencoderTiny is too slow.

AutoencoderTiny works at full resolution; two cores cannot. This one takes four by four
pixels to a feature by pixel-unshuffle, and hands the decoder the encoder's features at a
quarter of the size. The latents say how much of those features to let through, so that the
same decoder draws the camera's picture (latents of the encoder) and a painting (latents of
the U-Net). No attention, no normalisation, as in SDXS (arXiv 2403.16627, section 3.1).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config import AutoencoderConfig

PATCH_PX = 4
"""Pixels a side that the stem folds into one feature."""


class Conv(nn.Conv2d):
    """A 3x3 convolution; edges repeat, since zeros would draw a dark rim."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__(channels_in, channels_out, 3, stride, 1, padding_mode="replicate")


class Block(nn.Module):
    """Two convolutions and a way past them.

    TAESD's block without its last ReLU: features that only ever grow died in training.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = Conv(channels, channels)
        self.second = Conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → (B, C, h, w)."""
        change: Tensor = self.second(F.relu(self.first(x)))
        return x + change


class Encoder(nn.Module):
    """Pixels to latents."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        fine, coarse = config.channels
        self.stem = Conv(3 * PATCH_PX**2, fine)
        self.fine = nn.Sequential(*(Block(fine) for _ in range(config.encoder_blocks)))
        self.down = Conv(fine, coarse, stride=2)
        self.coarse = nn.Sequential(*(Block(coarse) for _ in range(config.encoder_blocks)))
        self.out = Conv(coarse, config.latent_channels)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode pixels, and keep what the decoder will want.

        Args:
            pixels: (B, 3, H, W) in [-1, 1]; H and W multiples of 8.

        Returns:
            latents (B, C, H/8, W/8), about unit variance, and skip (B, F, H/4, W/4).
        """
        skip = self.fine(self.stem(F.pixel_unshuffle(pixels, PATCH_PX)))
        latents = self.out(self.coarse(self.down(F.relu(skip))))
        return latents, skip


class Decoder(nn.Module):
    """Latents to pixels."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        fine, coarse = config.channels
        first, second = config.decoder_blocks
        self.stem = Conv(config.latent_channels, coarse)
        self.coarse = nn.Sequential(*(Block(coarse) for _ in range(first)))
        self.up = Conv(coarse, 2 * fine)
        self.fine = nn.Sequential(*(Block(fine) for _ in range(second)))
        self.out = Conv(fine, 3 * PATCH_PX**2)

    def forward(self, latents: Tensor, skip: Tensor) -> Tensor:
        """Decode latents.

        Args:
            latents: (B, C, H/8, W/8).
            skip: (B, F, H/4, W/4) of the encoder, for the same picture.

        Returns:
            pixels (B, 3, H, W), about [-1, 1]; not clamped.
        """
        features = F.relu(self.coarse(self.stem(latents)))
        drawn, gate = F.interpolate(self.up(features), scale_factor=2.0).chunk(2, dim=1)
        fine = self.fine(drawn + gate.sigmoid() * skip)
        return F.pixel_shuffle(self.out(F.relu(fine)), PATCH_PX)
