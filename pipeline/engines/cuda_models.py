"""The models as the CUDA engine takes them: on its device, in its dtype."""

from __future__ import annotations

import torch

from pipeline.engines.cuda_graph import CudaModel
from pipeline.engines.style_table import POOLED_KEY, TOKENS_KEY, StyleTable
from pipeline.tiny import TinyModel
from pipeline.translate import JoinedStep


def to_cuda_model(model: TinyModel, device: torch.device, dtype: torch.dtype) -> CudaModel:
    """Move ``sdxs-tiny`` to a device; its styles stay on the host, in float32."""
    config = model.config
    tensors = {
        TOKENS_KEY: model.styles.tokens.detach().numpy().copy(),
        POOLED_KEY: model.styles.pooled.detach().numpy().copy(),
    }
    table = StyleTable(tensors, config.styles)
    model = model.to(device, dtype)
    return CudaModel(
        name="sdxs-tiny",
        step=JoinedStep(model),
        latent_channels=config.autoencoder.latent_channels,
        tokens=(config.tokens, config.token_dim),
        pooled=config.token_dim,
        styles=table.styles,
        encode_prompt=table.encode,
        stages={"encode": model.encoder, "unet": model.unet, "decode": model.decoder},
    )
