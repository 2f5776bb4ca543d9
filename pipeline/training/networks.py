"""The networks of the method at their real sizes, as layouts that diffusers builds.

The parameter counts are those of the paper (arXiv 2403.16627, tables 1 to 3) and of the
released weights; a test counts them without memory for a single weight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from diffusers import ControlNetModel, UNet2DConditionModel
from torch import nn

from pipeline.sketch import CONTROL_CHANNELS
from pipeline.tiny import repeat_edges

TIME_IDS = 6
"""SDXL is told six numbers of a picture: its size, its crop and its target size."""
TIME_ID_DIM = 256
NARROW_CHANNELS = 40
NARROW_TEXT = 32
"""How many times narrower a dry run is: 320, 640 and 1280 channels become 8, 16 and 32."""


@dataclass(frozen=True)
class UNetLayout:
    """The arguments of diffusers' UNet2DConditionModel that differ between our networks."""

    block_out_channels: tuple[int, ...]
    down_block_types: tuple[str, ...]
    up_block_types: tuple[str, ...]
    cross_attention_dim: int
    heads: int | tuple[int, ...] = 8
    """Heads of attention; diffusers calls their number ``attention_head_dim``."""
    layers_per_block: int = 2
    mid_block: Literal["attention", "resnet"] | None = "attention"
    transformer_layers: int | tuple[int, ...] = 1
    only_cross_attention: tuple[bool, ...] = ()
    linear_projection: bool = False
    in_channels: int = 4
    out_channels: int = 4
    norm_num_groups: int = 32
    pooled_dim: int = 0
    """Size of a style's vector that scales and shifts every resnet; 0 for none."""
    text_time_dim: int = 0
    """Size of SDXL's pooled text; 0 for none."""


SD15 = UNetLayout(
    block_out_channels=(320, 640, 1280, 1280),
    down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    cross_attention_dim=768,
)
"""Stable Diffusion 1.5 and dreamshaper-8: 859,520,964 parameters."""

SD21 = replace(SD15, cross_attention_dim=1024, heads=(5, 10, 20, 20), linear_projection=True)
"""Stable Diffusion 2.1 base: 865,910,724."""

SDXS_512_DREAMSHAPER = UNetLayout(
    block_out_channels=(320, 640, 1280),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    cross_attention_dim=768,
    layers_per_block=1,
    mid_block=None,
)
"""The released sdxs-512-dreamshaper: 315,746,244."""

SDXS_512 = replace(
    SDXS_512_DREAMSHAPER, cross_attention_dim=1024, heads=(5, 10, 20), linear_projection=True
)
"""SDXS-512 as in the paper, cut from SD 2.1 base: 318,695,364."""

SDXS_512_09 = replace(
    SDXS_512,
    down_block_types=("CrossAttnDownBlock2D",) * 3,
    up_block_types=("CrossAttnUpBlock2D",) * 3,
    only_cross_attention=(True, False, False),
)
"""The released sdxs-512-0.9: cross-attention for self-attention at the top; 328,177,284."""

SKETCH_CONTROL = replace(SDXS_512_DREAMSHAPER, mid_block="attention")
"""The released sketch control network: 186,551,440, seven residuals."""

SDXL = UNetLayout(
    block_out_channels=(320, 640, 1280),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    cross_attention_dim=2048,
    heads=(5, 10, 20),
    transformer_layers=(1, 2, 10),
    linear_projection=True,
    text_time_dim=1280,
)
"""Stable Diffusion XL base: 2,567,463,684."""

SDXS_1024 = replace(SDXL, transformer_layers=(1, 1, 2), mid_block="resnet")
"""SDXS-1024 and Segmind-Vega, which the paper starts from: 745,225,604."""


def build_unet(layout: UNetLayout) -> UNet2DConditionModel:
    """Build a U-Net with random weights; on the meta device if that is the default."""
    unet = UNet2DConditionModel(
        **shared_arguments(layout),
        out_channels=layout.out_channels,
        up_block_types=layout.up_block_types,
        mid_block_type=mid_block_type(layout),
    )
    return repeat_edges(unet) if layout.pooled_dim else unet


def build_control(layout: UNetLayout) -> ControlNetModel:
    """Build the control network (arXiv 2302.05543) of a U-Net's layout.

    Its residuals are zero at first, so that it begins by changing nothing. It always has a
    middle stage, whose residual is added to the last one of the U-Net's way down.
    """
    control = ControlNetModel(
        **shared_arguments(layout), conditioning_embedding_out_channels=CONTROL_CHANNELS
    )
    return repeat_edges(control) if layout.pooled_dim else control


def shared_arguments(layout: UNetLayout) -> dict[str, Any]:
    """The arguments that U-Nets and control networks have in common."""
    arguments: dict[str, Any] = {
        "in_channels": layout.in_channels,
        "block_out_channels": layout.block_out_channels,
        "down_block_types": layout.down_block_types,
        "layers_per_block": layout.layers_per_block,
        "cross_attention_dim": layout.cross_attention_dim,
        "attention_head_dim": layout.heads,
        "transformer_layers_per_block": layout.transformer_layers,
        "only_cross_attention": layout.only_cross_attention or False,
        "use_linear_projection": layout.linear_projection,
        "norm_num_groups": layout.norm_num_groups,
    }
    if layout.pooled_dim:
        arguments |= {
            "resnet_time_scale_shift": "scale_shift",
            "class_embed_type": "projection",
            "projection_class_embeddings_input_dim": layout.pooled_dim,
        }
    if layout.text_time_dim:
        arguments |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": TIME_ID_DIM,
            "projection_class_embeddings_input_dim": TIME_IDS * TIME_ID_DIM + layout.text_time_dim,
        }
    return arguments


def mid_block_type(layout: UNetLayout) -> str | None:
    """The name that diffusers has for a layout's middle stage."""
    names = {"attention": "UNetMidBlock2DCrossAttn", "resnet": "UNetMidBlock2D"}
    return names[layout.mid_block] if layout.mid_block else None


def narrow(layout: UNetLayout) -> UNetLayout:
    """The same topology at a width that any machine can train two steps of."""
    return replace(
        layout,
        block_out_channels=tuple(c // NARROW_CHANNELS for c in layout.block_out_channels),
        cross_attention_dim=layout.cross_attention_dim // NARROW_TEXT,
        heads=4,
        norm_num_groups=4,
        text_time_dim=layout.text_time_dim // NARROW_TEXT,
    )


def count_parameters(*networks: nn.Module) -> int:
    """How many numbers training can change."""
    return sum(parameter.numel() for network in networks for parameter in network.parameters())
