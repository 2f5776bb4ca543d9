"""Feature maps of a U-Net at the end of each of its stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.training.denoiser import Condition, Denoiser, add_noise


def stage_ends(blocks: Sequence[nn.Module]) -> list[nn.Module]:
    """The last layer of each stage before the size changes.

    All stages but the last change it, so that what comes after could not be compared
    between networks of different depths.
    """
    ends: list[nn.Module] = []
    for block in blocks:
        layers: Any = getattr(block, "attentions", None) or block.resnets
        ends.append(layers[-1])
    return ends


@contextmanager
def record(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect what the layers put out while the context lasts, in the order they run."""
    features: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        features.append(output[0] if isinstance(output, tuple) else output)

    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


class EncoderFeatures:
    """The way down of a frozen U-Net as a feature extractor f for latents.

    The paper offers VGG, DINOv2 or the encoder of the diffusion model's own U-Net; only the
    last reads latents and needs nothing that was trained elsewhere.
    """

    def __init__(self, denoiser: Denoiser, timestep: int) -> None:
        self._denoiser = denoiser
        self._timestep = timestep

    @property
    def channels(self) -> list[int]:
        """Of each feature map."""
        return list(self._denoiser.unet.config.block_out_channels)

    def __call__(
        self, latents: Tensor, condition: Condition, noise: Tensor | None = None
    ) -> list[Tensor]:
        """Clean latents (B, C, h, w) → one feature map (B, F, h', w') a stage.

        Args:
            latents: to be described; gradients flow into them.
            condition: what the network is told meanwhile.
            noise: added as at the extractor's timestep; None for none.
        """
        timesteps = torch.full((len(latents),), self._timestep, device=latents.device)
        x_t = latents if noise is None else add_noise(latents, noise, timesteps)
        return run_encoder(self._denoiser, x_t, timesteps, condition)


def run_encoder(
    denoiser: Denoiser, x_t: Tensor, timesteps: Tensor, condition: Condition
) -> list[Tensor]:
    """The first half of diffusers' U-Net: the features at the end of each stage down."""
    unet = denoiser.unet
    told = denoiser.tell(condition, x_t)
    # 1. Time, and what is added to it.
    embedding = unet.time_embedding(unet.get_time_embed(x_t, timesteps))
    style = unet.get_class_embed(x_t, told.get("class_labels"))
    added = unet.get_aug_embed(embedding, condition.tokens, told.get("added_cond_kwargs"))
    for extra in (style, added):
        embedding = embedding if extra is None else embedding + extra
    # 2. Down.
    joined = condition.joined
    sample = unet.conv_in(x_t if joined is None else torch.cat([x_t, joined], dim=1))
    features: list[Tensor] = []
    for block in unet.down_blocks:
        tokens = (
            {"encoder_hidden_states": condition.tokens}
            if getattr(block, "has_cross_attention", False)
            else {}
        )
        sample, states = block(hidden_states=sample, temb=embedding, **tokens)
        features.append(states[-1] if block.downsamplers is None else states[-2])
    return features
