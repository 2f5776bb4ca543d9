"""Low-rank updates of weights (LoRA, arXiv 2106.09685), while they are trained."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pipeline.low_rank import adaptable


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
