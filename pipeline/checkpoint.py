"""Weights on disk to networks: foreign key names and formats live here and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import safetensors.torch
import torch
from torch import nn

from pipeline.config import SKETCH, TINY, TinyConfig
from pipeline.sketch import SketchModel
from pipeline.tensors import fill, read_tensors
from pipeline.tiny import TinyModel

Network = TypeVar("Network", bound=nn.Module)


def load_tiny(path: Path, config: TinyConfig = TINY) -> TinyModel:
    """Load ``sdxs-tiny`` for use, in float32 and channels_last.

    Raises:
        CheckpointError: the file is missing, damaged, or does not fit ``config``.
    """
    return load_embedded(TinyModel(config), path)


def load_sketch(path: Path, config: TinyConfig = SKETCH) -> SketchModel:
    """Load ``sdxs-tiny-sketch`` for use, in float32 and channels_last.

    Raises:
        CheckpointError: the file is missing, damaged, or does not fit ``config``.
    """
    return load_embedded(SketchModel(config), path)


def load_embedded(model: Network, path: Path) -> Network:
    """Fill a model that holds nothing yet.

    Raises:
        CheckpointError: the file is missing, damaged, or of another model.
    """
    state = read_tensors(path)
    fill(model, {name: value.float() for name, value in state.items()}, path.name)
    return to_channels_last(model.eval().requires_grad_(False))


def save_embedded(model: TinyModel | SketchModel, path: Path) -> None:
    """Write ``model`` as safetensors, rounded to float16: half the size, no difference seen."""
    tensors = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    safetensors.torch.save_file(tensors, path)


def to_channels_last(model: Network) -> Network:
    """Lay the weights of convolutions out as the fast kernels want them, in place."""
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model
