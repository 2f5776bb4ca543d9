"""Low-rank updates of weights (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pipeline.errors import CheckpointError

FOREIGN_PREFIXES = ("base_model.model.", "unet.")
"""What other programs put before a module's name."""


class LowRankUpdate(nn.Module):
    """weight + up @ down, which is nothing at first."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(weight.new_empty(rank, weight[0].numel()))
        self.up = nn.Parameter(weight.new_zeros(len(weight), rank))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """(out, in, ...) → the same shape."""
        return weight + (self.up @ self.down).view_as(weight)


def add_low_rank(network: nn.Module, rank: int) -> nn.ModuleList:
    """Put an update on the weight of every linear layer and convolution; freeze all else.

    Returns:
        The updates, in the order of the network's modules: all that training changes.
    """
    network.requires_grad_(False)
    updates = nn.ModuleList()
    for module in adaptable(network).values():
        update = LowRankUpdate(module.weight, rank)
        parametrize.register_parametrization(module, "weight", update)
        updates.append(update)
    return updates


def adaptable(network: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """The layers that an update fits, by name."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def merge_low_rank(network: nn.Module) -> None:
    """Make the updates part of the weights; the network is then of its plain kind again."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")


def write_low_rank(updates: nn.ModuleList, network: nn.Module, path: Path) -> None:
    """Write updates as ``MODULE.lora_A.weight`` and ``MODULE.lora_B.weight``, as peft does."""
    tensors = {}
    for (name, module), update in zip(adaptable(network).items(), updates, strict=True):
        assert isinstance(update, LowRankUpdate)
        rank = len(update.down)
        down = update.down.detach().view(rank, *module.weight.shape[1:])
        up = update.up.detach().view(-1, rank, *(1,) * (module.weight.dim() - 2))
        tensors[f"{name}.lora_A.weight"] = down.contiguous()
        tensors[f"{name}.lora_B.weight"] = up.contiguous()
    safetensors.torch.save_file(tensors, path)


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
    tensors = read_tensors(path)
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


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of safetensors.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"there is no LoRA at {path}") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name} is damaged or no safetensors file: {error}") from error


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
