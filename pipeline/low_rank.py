"""A LoRA (arXiv 2106.09685) made part of a network's weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.errors import CheckpointError
from pipeline.tensors import read_tensors

FOREIGN_PREFIXES = ("base_model.model.", "unet.")
"""What other programs put before a module's name."""


def adaptable(network: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """The layers that an update fits, by name."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


@torch.no_grad()
def insert_low_rank(network: nn.Module, path: Path, strength: float = 1.0) -> int:
    """Add the updates of a file to a network's weights, for good.

    Args:
        network: what the file was made for.
        path: safetensors, named as peft names them.
        strength: 1 for the whole update.

    Returns:
        How many layers changed.

    Raises:
        CheckpointError: the file is missing or damaged, or does not fit the network.
    """
    tensors = read_tensors(path, "there is no LoRA")
    layers = adaptable(network)
    names = {plain_name(name) for name in tensors}
    if not names or (unknown := sorted(names - set(layers))):
        raise CheckpointError(
            f"the LoRA {path.name} does not fit this network: "
            + (f"it has no layer {unknown[0]}" if names else "it updates no layer")
        )
    for name in sorted(names):
        weight = layers[name].weight
        down, up = (find_part(tensors, name, part, path) for part in ("lora_A", "lora_B"))
        update = up.flatten(1).float() @ down.flatten(1).float()
        if update.numel() != weight.numel():
            raise CheckpointError(
                f"the LoRA {path.name} does not fit this network: {name} is "
                f"{tuple(weight.shape)}, the update {tuple(update.shape)}"
            )
        weight += strength * update.view_as(weight).to(weight)
    return len(names)


def plain_name(name: str) -> str:
    """The layer that a tensor of a LoRA file belongs to."""
    for prefix in FOREIGN_PREFIXES:
        name = name.removeprefix(prefix)
    return name.split(".lora_")[0]


def find_part(tensors: dict[str, Tensor], layer: str, part: str, path: Path) -> Tensor:
    """One of a layer's two matrices.

    Raises:
        CheckpointError: the file lacks it.
    """
    for name, tensor in tensors.items():
        if plain_name(name) == layer and f".{part}." in name:
            return tensor
    raise CheckpointError(f"the LoRA {path.name} has no {part} for {layer}")
