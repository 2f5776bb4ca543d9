"""A model in memory: what every engine that runs torch must know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from pipeline.config import SKETCH_PRESET, TINY_PRESET, Lines, Preset
from pipeline.engines.engine import Conditioning, Size, Style
from pipeline.engines.style_table import POOLED_KEY, TOKENS_KEY, StyleTable
from pipeline.sketch import SketchModel, SketchStep
from pipeline.tiny import TinyModel
from pipeline.translate import JoinedStep, Step


@dataclass(frozen=True)
class LoadedModel:
    """One model, in the device and dtype of its last :meth:`to`."""

    name: str
    step: Step
    latent_channels: int
    tokens: tuple[int, int]
    """(T, D) of a conditioning."""
    pooled: int
    """(P,) of a conditioning; 0 for none."""
    encode_prompt: Callable[[str], Conditioning]
    default_size: Size
    size_step_px: int
    default_strength: float
    styles: tuple[Style, ...] = ()
    stages: Mapping[str, nn.Module] = field(default_factory=dict)
    """Parts of the step by name, in the order of a frame, for a measurement."""
    text_encoders: tuple[nn.Module, ...] = ()
    """What ``encode_prompt`` runs, beside the frames."""

    def to(self, device: torch.device, dtype: torch.dtype) -> LoadedModel:
        """Move the networks, in place; return this."""
        for network in (self.step, *self.text_encoders):
            network.to(device, dtype)
        return self


def to_loaded(model: TinyModel) -> LoadedModel:
    """Describe ``sdxs-tiny``."""
    stages = {"encode": model.encoder, "unet": model.unet, "decode": model.decoder}
    return describe(model, TINY_PRESET, JoinedStep(model), stages)


def to_loaded_sketch(model: SketchModel, lines: Lines) -> LoadedModel:
    """Describe ``sdxs-tiny-sketch``."""
    stages = {"control": model.control, "unet": model.unet, "decode": model.decoder}
    return describe(model, SKETCH_PRESET, SketchStep(model, lines), stages)


def describe(
    model: TinyModel | SketchModel, preset: Preset, step: Step, stages: Mapping[str, nn.Module]
) -> LoadedModel:
    """Describe an embedded model; its styles stay on the host, in float32."""
    config = model.config
    tensors = {
        TOKENS_KEY: model.styles.tokens.detach().numpy().copy(),
        POOLED_KEY: model.styles.pooled.detach().numpy().copy(),
    }
    table = StyleTable(tensors, config.styles)
    return LoadedModel(
        name=preset.name,
        step=step,
        latent_channels=config.autoencoder.latent_channels,
        tokens=(config.tokens, config.token_dim),
        pooled=config.token_dim,
        encode_prompt=table.encode,
        default_size=preset.default_size,
        size_step_px=preset.size_step_px,
        default_strength=preset.default_strength,
        styles=table.styles,
        stages=stages,
    )
