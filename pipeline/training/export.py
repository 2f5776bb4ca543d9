"""Trained weights to what the package ships: safetensors and OpenVINO's IR."""

from __future__ import annotations

import copy
from pathlib import Path

import openvino
import torch

from pipeline.checkpoint import load_tiny, save_embedded
from pipeline.engines.openvino_ir import fix_timestep, to_ir
from pipeline.tiny import TinyModel
from pipeline.translate import JoinedStep, StepInputs
from pipeline.weights import TINY_IR, TINY_WEIGHTS


def example_inputs(model: TinyModel, height: int = 64, width: int = 96) -> StepInputs:
    """Inputs of a size that no engine uses, so that nothing can be fitted to it."""
    config = model.config
    noise_shape = (1, config.autoencoder.latent_channels, height // 8, width // 8)
    return StepInputs(
        torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8),
        torch.zeros(1, 3, height, width),
        torch.randn(noise_shape),
        torch.randn(1, config.tokens, config.token_dim),
        torch.randn(1, config.token_dim),
        torch.ones(1, 1, 1, 1),
        torch.zeros(1, 1, 1, 1),
    )


def with_fixed_timestep(model: TinyModel) -> TinyModel:
    """Return a copy whose embedding of t = 999 is a constant."""
    fixed = copy.deepcopy(model)
    fix_timestep(fixed.unet, fixed.get_buffer("timestep"))
    return fixed


def export_ir(model: TinyModel, path: Path) -> None:
    """Write the step as IR with any height and width; weights rounded to 16 bits on disk.

    Writes ``path`` (.xml) and the file with the weights beside it (.bin).
    """
    ir = to_ir(JoinedStep(with_fixed_timestep(model)), example_inputs(model))
    openvino.save_model(ir, path, compress_to_fp16=True)


def export(model: TinyModel, folder: Path) -> None:
    """Write both files that engines read."""
    folder.mkdir(parents=True, exist_ok=True)
    save_embedded(model, folder / TINY_WEIGHTS)
    # From the rounded weights, so that both files hold the same numbers.
    export_ir(load_tiny(folder / TINY_WEIGHTS, model.config), folder / TINY_IR)
