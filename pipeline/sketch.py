"""``sdxs-tiny-sketch``: the embedded one-step U-Net, told lines by its control network.

What stages ``one-step`` and ``control`` of the method leave (SDXS, section 3.3), joined. The
photo's half of the U-Net's input, which these stages leave at zero, is cut off.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from diffusers import ControlNetModel
from torch import Tensor, nn

from pipeline.config import Lines, TinyConfig, UNetConfig
from pipeline.lines import draw_lines
from pipeline.schedule import LAST_TIMESTEP, OneStep
from pipeline.tiny import StyleTable, build_unet, repeat_edges
from pipeline.translate import Step
from pipeline.wide_decoder import WideDecoder

CONTROL_CHANNELS = (16, 32, 96, 256)
"""Features of the small network that takes a control image to the latents' size."""


def build_control(config: UNetConfig) -> ControlNetModel:
    """Diffusers' control network of the embedded U-Net (arXiv 2302.05543).

    It has a middle stage, whose residual is added to the last one of the U-Net's way down.
    """
    control = ControlNetModel(
        in_channels=config.in_channels,
        block_out_channels=config.block_out_channels,
        down_block_types=config.down_block_types,
        layers_per_block=1,
        cross_attention_dim=config.cross_attention_dim,
        attention_head_dim=config.attention_head_dim,
        norm_num_groups=config.norm_num_groups,
        use_linear_projection=True,
        only_cross_attention=(True,) * len(config.block_out_channels),
        resnet_time_scale_shift="scale_shift",
        class_embed_type="projection",
        projection_class_embeddings_input_dim=config.pooled_dim,
        conditioning_embedding_out_channels=CONTROL_CHANNELS,
    )
    return repeat_edges(control)


class SketchModel(nn.Module):
    """The whole of ``sdxs-tiny-sketch``."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.autoencoder.latent_channels
        layout = replace(config.unet, in_channels=channels)
        self.unet = build_unet(layout)
        self.control = build_control(layout)
        self.decoder = WideDecoder(channels)
        self.styles = StyleTable(config)


class SketchStep(Step):
    """Lines → control network → one U-Net call at t = 999 → x_0 → decode.

    ``strength`` weighs the lines: at 0 there is only the style.
    """

    def __init__(self, model: SketchModel, lines: Lines) -> None:
        super().__init__()
        self.unet = model.unet
        self.control = model.control
        self.decoder = model.decoder
        self.lines = lines
        self.one_step = OneStep.at(LAST_TIMESTEP, "v_prediction")
        self.register_buffer("timestep", torch.full((1,), LAST_TIMESTEP), persistent=False)

    def draw(
        self, pixels: Tensor, noise: Tensor, tokens: Tensor, pooled: Tensor, strength: Tensor
    ) -> Tensor:
        """See :meth:`pipeline.translate.Step.draw`."""
        told = {"encoder_hidden_states": tokens, "class_labels": pooled, "return_dict": False}
        # 1. The camera's lines, and what they say to the U-Net.
        down, middle = self.control(
            noise,
            self.timestep,
            controlnet_cond=draw_lines(pixels, self.lines),
            conditioning_scale=strength,
            **told,
        )
        # 2. One U-Net call, x_0 by one linear map.
        output = self.unet(
            noise,
            self.timestep,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            **told,
        )[0]
        x_0 = self.one_step.predict_x0(noise, output)
        # 3. Decode.
        drawn: Tensor = self.decoder(x_0)
        return drawn
