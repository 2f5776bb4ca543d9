"""``sdxs-tiny``: the networks of the embedded model, joined.

An SDXS-shaped model (arXiv 2403.16627): small autoencoder, a U-Net without a middle stage,
one call at t = 999. The camera's latents are joined to the noise latents as the U-Net's
input, which the released models cannot do.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from pipeline.autoencoder import Decoder, Encoder
from pipeline.config import TinyConfig, UNetConfig
from pipeline.schedule import LAST_TIMESTEP, OneStep

Network = TypeVar("Network", bound=nn.Module)


def build_unet(config: UNetConfig) -> UNet2DConditionModel:
    """Diffusers' U-Net without a middle stage and with one resnet a stage, as in SDXS.

    The pooled conditioning scales and shifts the features of every resnet; edges repeat.
    """
    unet = UNet2DConditionModel(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        block_out_channels=config.block_out_channels,
        down_block_types=config.down_block_types,
        mid_block_type=None,
        up_block_types=config.up_block_types,
        layers_per_block=1,
        cross_attention_dim=config.cross_attention_dim,
        attention_head_dim=config.attention_head_dim,
        norm_num_groups=config.norm_num_groups,
        use_linear_projection=True,
        # As in sdxs-512-0.9; self-attention took a sixth of the step.
        only_cross_attention=True,
        resnet_time_scale_shift="scale_shift",
        class_embed_type="projection",
        projection_class_embeddings_input_dim=config.pooled_dim,
    )
    if config.in_channels > config.out_channels:
        # The noise begins unheard: its half of the input is only in the way of a first fit.
        nn.init.zeros_(unet.conv_in.weight.data[:, : config.out_channels])
    return repeat_edges(unet)


def repeat_edges(network: Network) -> Network:
    """Repeat the picture's edge in 3x3 convolutions, in place."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.padding_mode = "replicate"
            module._reversed_padding_repeated_twice = [1, 1, 1, 1]
    return network


class StyleTable(nn.Module):
    """What each style is to the U-Net; this model's text encoder."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        count = len(config.styles)
        self.tokens = nn.Parameter(torch.randn(count, config.tokens, config.token_dim))
        self.pooled = nn.Parameter(torch.randn(count, config.token_dim))

    def forward(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (B, styles) that sum to 1 → tokens (B, T, D) and pooled (B, D)."""
        return torch.einsum("bs,std->btd", weights, self.tokens), weights @ self.pooled


class TinyModel(nn.Module):
    """The whole of ``sdxs-tiny``."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.autoencoder)
        self.unet = build_unet(config.unet)
        self.decoder = Decoder(config.autoencoder)
        self.styles = StyleTable(config)
        self.one_step = OneStep.at(LAST_TIMESTEP, "v_prediction")
        self.register_buffer("timestep", torch.full((1,), LAST_TIMESTEP), persistent=False)

    def predict(self, noise: Tensor, latents: Tensor, tokens: Tensor, pooled: Tensor) -> Tensor:
        """The one U-Net call.

        Args:
            noise: (B, C, h, w), standard normal; x_t at t = 999 for all that matters.
            latents: (B, C, h, w), the camera's picture.
            tokens: (B, T, D).
            pooled: (B, D).

        Returns:
            x_0 (B, C, h, w): the latents of the translated picture.
        """
        output = self.unet(
            torch.cat([noise, latents], dim=1),
            self.timestep,
            encoder_hidden_states=tokens,
            class_labels=pooled,
            return_dict=False,
        )[0]
        return self.one_step.predict_x0(noise, output)
