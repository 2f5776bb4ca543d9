"""The embedded model at a size that a test can afford, untrained."""

from __future__ import annotations

import torch

from pipeline.checkpoint import to_channels_last
from pipeline.config import STYLES, AutoencoderConfig, TinyConfig
from pipeline.tiny import TinyModel

TINIEST = TinyConfig(
    styles=STYLES[:4],
    tokens=2,
    token_dim=16,
    autoencoder=AutoencoderConfig(latent_channels=8, channels=(8, 16), decoder_blocks=(1, 1)),
    block_out_channels=(16, 16),
    attention_head_dim=8,
    norm_num_groups=4,
)


def make_model(seed: int = 0, config: TinyConfig = TINIEST) -> TinyModel:
    """A model with random weights that hears its noise."""
    torch.manual_seed(seed)
    model = TinyModel(config)
    model.unet.conv_in.reset_parameters()
    return to_channels_last(model.eval().requires_grad_(False))
