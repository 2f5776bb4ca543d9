"""Weights on disk to networks: foreign key names and formats live here and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import safetensors.torch
import torch
from torch import nn

from pipeline.config import TINY, TinyConfig
from pipeline.tensors import fill, read_tensors
from pipeline.tiny import TinyModel

Network = TypeVar("Network", bound=nn.Module)


def load_tiny(path: Path, config: TinyConfig = TINY) -> TinyModel:
    """Load ``sdxs-tiny`` for use, in float32 and channels_last.

    Raises:
        CheckpointError: the file is missing, damaged, or does not fit ``config``.
    """
    state = read_tensors(path)
    model = TinyModel(config)
    fill(model, {name: value.float() for name, value in state.items()}, path.name)
    return to_channels_last(model.eval().requires_grad_(False))


def save_tiny(model: TinyModel, path: Path) -> None:
    """Write ``model`` as safetensors, rounded to float16: half the size, no difference seen."""
    tensors = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    safetensors.torch.save_file(tensors, path)


def to_channels_last(model: Network) -> Network:
    """Lay the weights of convolutions out as the fast kernels want them, in place."""
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model
