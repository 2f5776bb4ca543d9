"""Weights on disk to networks: foreign key names and formats live here and nowhere else."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch

from pipeline.config import TINY, TinyConfig
from pipeline.errors import CheckpointError
from pipeline.tiny import TinyModel


def load_tiny(path: Path, config: TinyConfig = TINY) -> TinyModel:
    """Load ``sdxs-tiny`` for use, in float32 and channels_last.

    Raises:
        CheckpointError: the file is missing, damaged, or does not fit ``config``.
    """
    try:
        state = safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"there are no weights at {path}") from None
    except Exception as error:
        raise CheckpointError(f"{path.name} is damaged or no safetensors file: {error}") from error
    model = TinyModel(config)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if wrong := sorted(name for name in wanted | found if wanted.get(name) != found.get(name)):
        raise CheckpointError(
            f"{path.name} does not fit sdxs-tiny: {len(wrong)} tensors differ, the first is "
            f"{wrong[0]} (wanted {wanted.get(wrong[0])}, found {found.get(wrong[0])})"
        )
    model.load_state_dict({name: value.float() for name, value in state.items()})
    return to_channels_last(model.eval().requires_grad_(False))


def save_tiny(model: TinyModel, path: Path) -> None:
    """Write ``model`` as safetensors, rounded to float16: half the size, no difference seen."""
    tensors = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    safetensors.torch.save_file(tensors, path)


def to_channels_last(model: TinyModel) -> TinyModel:
    """Lay the weights of convolutions out as the fast kernels want them, in place."""
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model
