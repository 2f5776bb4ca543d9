"""How the camera's picture conditions the published U-Nets, which were not trained to see one.

SDXS knows only t = 999, where a noised picture's share of the latents is 0.0047: its lines come
in through a control network. SD-Turbo knows earlier timesteps, where the picture shows through.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderTiny, ControlNetModel, UNet2DConditionModel
from torch import Tensor

from pipeline.config import Lines
from pipeline.lines import draw_lines
from pipeline.schedule import (
    LAST_TIMESTEP,
    OneStep,
    Prediction,
    add_noise,
    make_alphas_cumprod,
    to_x0,
)
from pipeline.translate import Step


@dataclass(frozen=True)
class Networks:
    """What every published model is made of."""

    unet: UNet2DConditionModel
    autoencoder: AutoencoderTiny
    prediction: Prediction


class PublishedStep(Step):
    """What the steps of published models have in common."""

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.unet = networks.unet
        self.autoencoder = networks.autoencoder
        self.prediction: Prediction = networks.prediction
        self._scaling_factor: float = networks.autoencoder.config.scaling_factor

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → latents (B, 4, H/8, W/8), scaled as the U-Net has them."""
        latents: Tensor = self.autoencoder.encode(pixels, return_dict=False)[0]
        return latents * self._scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Latents, scaled as the U-Net has them, → pixels."""
        latents = latents / self._scaling_factor
        pixels: Tensor = self.autoencoder.decode(latents, return_dict=False)[0]
        return pixels

    def tell(self, pixels: Tensor, pooled: Tensor) -> dict[str, dict[str, Tensor]]:
        """SDXL's further conditioning: the pooled text, and the picture's size, uncropped.

        Sizes are fixed while an engine lives, so that they may be constants in a graph.
        """
        if self.unet.config.addition_embed_type != "text_time":
            return {}
        height, width = pixels.shape[-2:]
        told = (height, width, 0, 0, height, width)
        column = pooled[:, :1]
        time_ids = torch.cat([torch.full_like(column, float(number)) for number in told], dim=1)
        return {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": time_ids}}


class ControlStep(PublishedStep):
    """Lines → control network → one U-Net call at t = 999 → x_0 → decode.

    ``strength`` weighs the lines: at 0 there is only the prompt, 0.8 is what was published.
    """

    def __init__(self, networks: Networks, control: ControlNetModel, lines: Lines) -> None:
        super().__init__(networks)
        self.control = control
        self.lines = lines
        self.one_step = OneStep.at(LAST_TIMESTEP, networks.prediction)
        self.register_buffer("timestep", torch.full((1,), LAST_TIMESTEP), persistent=False)

    def draw(
        self, pixels: Tensor, noise: Tensor, tokens: Tensor, pooled: Tensor, strength: Tensor
    ) -> Tensor:
        """See :meth:`pipeline.translate.Step.draw`."""
        told = self.tell(pixels, pooled)
        # 1. The camera's lines, and what they say to the U-Net.
        down, middle = self.control(
            noise,
            self.timestep,
            encoder_hidden_states=tokens,
            controlnet_cond=draw_lines(pixels, self.lines),
            conditioning_scale=strength,
            return_dict=False,
            **told,
        )
        # 2. One U-Net call. It adds the middle residual even without a middle stage.
        output = self.unet(
            noise,
            self.timestep,
            encoder_hidden_states=tokens,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
            **told,
        )[0]
        # 3. x_0 by one linear map; in half precision its weight of 14.6 would show.
        x_0 = self.one_step.predict_x0(noise.float(), output.float())
        return self.decode(x_0.to(noise.dtype))


class NoisedStep(PublishedStep):
    """Encode → noise to the timestep of ``strength`` → one U-Net call → x_0 → decode.

    At a strength of 0 the picture is the autoencoder's, at 1 nothing of the camera is left.
    """

    def __init__(self, networks: Networks) -> None:
        super().__init__(networks)
        alphas_cumprod = make_alphas_cumprod()
        self.register_buffer("alphas", alphas_cumprod.sqrt().float(), persistent=False)
        self.register_buffer("sigmas", (1.0 - alphas_cumprod).sqrt().float(), persistent=False)

    def draw(
        self, pixels: Tensor, noise: Tensor, tokens: Tensor, pooled: Tensor, strength: Tensor
    ) -> Tensor:
        """See :meth:`pipeline.translate.Step.draw`."""
        # 1. The timestep, by row.
        timestep = (strength.float().flatten() * LAST_TIMESTEP).round().long()
        alpha, sigma = (
            self.get_buffer(name).index_select(0, timestep).float().view(-1, 1, 1, 1)
            for name in ("alphas", "sigmas")
        )
        # 2. Encode and noise.
        x_t = add_noise(self.encode(pixels).float(), noise.float(), alpha, sigma)
        # 3. One U-Net call, and x_0.
        output = self.unet(
            x_t.to(noise.dtype),
            timestep,
            encoder_hidden_states=tokens,
            return_dict=False,
            **self.tell(pixels, pooled),
        )[0]
        x_0 = to_x0(x_t, output.float(), alpha, sigma, self.prediction)
        return self.decode(x_0.to(noise.dtype))
