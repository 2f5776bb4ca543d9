"""The one function of a batch of frames, as one module: what engines run, export or capture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.pixels import to_images, to_pixels
from pipeline.stability import hold_still
from pipeline.tiny import TinyModel


class StepInputs(NamedTuple):
    """All that a step reads; every row of a batch has its own."""

    images: Tensor
    """(B, H, W, 3) uint8 RGB."""
    memory: Tensor
    """(B, 3, H, W) in [-1, 1]: what the step returned for the frame before."""
    noise: Tensor
    """(B, C, H/8, W/8), standard normal."""
    tokens: Tensor
    """(B, T, D)."""
    pooled: Tensor
    """(B, P)."""
    strength: Tensor
    """(B, 1, 1, 1) in [0, 1]."""
    stability: Tensor
    """(B, 1, 1, 1) in [0, 1]; 0 for a session's first frame, whose memory is not read then."""


class Step(nn.Module, ABC):
    """How a model draws. A subclass says how the camera's picture reaches the U-Net."""

    def forward(
        self,
        images: Tensor,
        memory: Tensor,
        noise: Tensor,
        tokens: Tensor,
        pooled: Tensor,
        strength: Tensor,
        stability: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Translate a batch; see :class:`StepInputs`.

        Returns:
            images (B, H, W, 3) uint8 RGB, and the next frame's memory (B, 3, H, W).
        """
        # 1. Pixels, with the still parts held.
        pixels = hold_still(to_pixels(images), memory, stability)
        # 2. What the model draws of them.
        return to_images(self.draw(pixels, noise, tokens, pooled, strength)), pixels

    @abstractmethod
    def draw(
        self, pixels: Tensor, noise: Tensor, tokens: Tensor, pooled: Tensor, strength: Tensor
    ) -> Tensor:
        """Translate pixels (B, 3, H, W) in [-1, 1] into pixels; see :class:`StepInputs`."""


class JoinedStep(Step):
    """``sdxs-tiny``: encode → join with the noise → one U-Net call → x_0 → decode."""

    def __init__(self, model: TinyModel) -> None:
        super().__init__()
        self.model = model

    def draw(
        self, pixels: Tensor, noise: Tensor, tokens: Tensor, pooled: Tensor, strength: Tensor
    ) -> Tensor:
        """See :meth:`Step.draw`."""
        # 1. Encode.
        latents, skip = self.model.encoder(pixels)
        # 2. One U-Net call, and x_0 by one linear map.
        x_0 = self.model.predict(noise, latents, tokens, pooled)
        # 3. Decode the latents at the asked distance from the camera's.
        drawn: Tensor = self.model.decoder(torch.lerp(latents, x_0, strength), skip)
        return drawn
