"""A U-Net as a denoiser: what it is told, what it predicts, and the noise levels.

One way of calling for every family: the embedded one is told a style and the camera's
latents, Stable Diffusion is told a prompt, and both may have a control network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from pipeline import schedule
from pipeline.schedule import Prediction, make_alphas_cumprod, to_x0

LATENT_PX = 8
"""Pixels a side of one latent, in every family."""


@dataclass(frozen=True)
class Condition:
    """What a denoiser is told besides x_t; every row of a batch has its own."""

    tokens: Tensor
    """(B, T, D), for cross-attention."""
    pooled: Tensor | None = None
    """(B, P): a style's vector, or SDXL's pooled text."""
    joined: Tensor | None = None
    """(B, C, h, w): the camera's latents, joined to x_t."""
    control: Tensor | None = None
    """(B, 3, H, W) in [0, 1]: the control image, dark lines on white."""

    def with_control(self, control: Tensor | None) -> Condition:
        """The same with another control image."""
        return replace(self, control=control)

    def map(self, change: Callable[[Tensor], Tensor]) -> Condition:
        """Change every tensor that is there."""
        return replace(
            self,
            **{
                field.name: change(value)
                for field in fields(self)
                if (value := getattr(self, field.name)) is not None
            },
        )


@lru_cache(maxsize=1)
def alphas_cumprod() -> Tensor:
    """(1000,) float32."""
    return make_alphas_cumprod().float()


def noise_level(timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) timesteps → alpha and sigma (B, 1, 1, 1) of x_t = alpha x_0 + sigma eps."""
    square = alphas_cumprod().to(timesteps.device)[timesteps].view(-1, 1, 1, 1)
    return square.sqrt(), (1.0 - square).sqrt()


def add_noise(x_0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """x_t at each row's own timestep (DDPM, eq. 4)."""
    return schedule.add_noise(x_0, noise, *noise_level(timesteps))


class Denoiser(nn.Module):
    """A U-Net with what it predicts, and the control network attached to it, if any."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        prediction: Prediction,
        control: ControlNetModel | None = None,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.control = control
        self.prediction: Prediction = prediction

    def forward(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """Call the network.

        Args:
            x_t: (B, C, h, w).
            timesteps: (B,), in [0, 999].
            condition: what each row is told.

        Returns:
            eps or v (B, C, h, w), by ``prediction``.
        """
        joined = condition.joined
        sample = x_t if joined is None else torch.cat([x_t, joined], dim=1)
        told = {"encoder_hidden_states": condition.tokens, **self.tell(condition, x_t)}
        residuals = {}
        if self.control is not None:
            down, mid = self.control(
                sample, timesteps, controlnet_cond=condition.control, return_dict=False, **told
            )
            residuals = {
                "down_block_additional_residuals": down,
                "mid_block_additional_residual": mid,
            }
        output: Tensor = self.unet(sample, timesteps, return_dict=False, **told, **residuals)[0]
        return output

    def tell(self, condition: Condition, x_t: Tensor) -> dict[str, Any]:
        """The arguments, beside the tokens, that this kind of U-Net takes the condition by."""
        if self.unet.config.addition_embed_type == "text_time":
            height, width = x_t.shape[2] * LATENT_PX, x_t.shape[3] * LATENT_PX
            size = torch.tensor([[height, width, 0, 0, height, width]], device=x_t.device)
            time_ids = size.expand(len(x_t), -1)
            return {"added_cond_kwargs": {"text_embeds": condition.pooled, "time_ids": time_ids}}
        return {"class_labels": condition.pooled} if condition.pooled is not None else {}

    def predict_x_0(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """The network's best guess of the clean latents (B, C, h, w)."""
        return self.to_x_0(self(x_t, timesteps, condition), x_t, timesteps)

    def to_x_0(self, output: Tensor, x_t: Tensor, timesteps: Tensor) -> Tensor:
        """DDPM, eq. 15 solved for x_0, or arXiv 2202.00512, appendix D."""
        alpha, sigma = noise_level(timesteps)
        return to_x0(x_t, output, alpha, sigma, self.prediction)

    def target(self, x_0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network should have put out for x_t of ``x_0`` and ``noise``."""
        if self.prediction == "epsilon":
            return noise
        alpha, sigma = noise_level(timesteps)
        return alpha * noise - sigma * x_0


def predict_guided(
    denoiser: Denoiser,
    x_t: Tensor,
    timesteps: Tensor,
    told: tuple[Condition, Condition],
    guidance_scale: float,
) -> Tensor:
    """x_0 under classifier-free guidance (arXiv 2207.12598, eq. 6).

    Args:
        denoiser: the network.
        x_t: (B, C, h, w).
        timesteps: (B,).
        told: the condition, and the same without its prompt.
        guidance_scale: 1 for none, which costs one call instead of two.
    """
    condition, without = told
    output = denoiser(x_t, timesteps, condition)
    if guidance_scale != 1.0:
        unguided = denoiser(x_t, timesteps, without)
        output = unguided + guidance_scale * (output - unguided)
    return denoiser.to_x_0(output, x_t, timesteps)
