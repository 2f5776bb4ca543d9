"""Block removal: a smaller U-Net that begins with what is left of a larger one's weights.

SDXS (section 3.1) cuts in the manner of BK-SDM (arXiv 2305.15798): the middle stage, the
last stage down and the first stage up go, as do the second of two resnets and the
Transformer blocks of the highest resolution.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Removal:
    """How much of the smaller network began with the larger one's weights."""

    kept: int
    """Parameters that were copied."""
    fresh: int
    """Parameters that stay random: where a stage's width was cut off from its neighbour."""


@torch.no_grad()
def copy_remaining(student: nn.Module, teacher: nn.Module) -> Removal:
    """Copy into ``student``, a diffusers U-Net or control network, what it kept of ``teacher``.

    Stages are counted from the highest resolution; of the resnets in a stage up the first
    and the last stay, since only these have the widths that a shallower stage needs.
    """
    theirs = teacher.state_dict()
    ours = student.state_dict()
    names = Names(Depths.of(ours), Depths.of(theirs))
    kept = 0
    for name, value in ours.items():
        source = theirs.get(names.in_teacher(name))
        if source is not None and source.shape == value.shape:
            value.copy_(source)
            kept += value.numel()
    total = sum(value.numel() for value in ours.values())
    return Removal(kept, total - kept)


@dataclass(frozen=True)
class Depths:
    """How many stages a network has, and layers in each."""

    stages: int
    layers_down: int
    layers_up: int

    @classmethod
    def of(cls, state: dict[str, Tensor]) -> Depths:
        """Read the depths off the names of the weights."""
        return cls(
            count(r"down_blocks\.(\d+)\.", state),
            count(r"down_blocks\.\d+\.resnets\.(\d+)\.", state),
            count(r"up_blocks\.\d+\.resnets\.(\d+)\.", state),
        )

    def residuals(self) -> list[tuple[int, int]]:
        """What a control network's residuals are of: (stage, layer); layer -1 is a halving."""
        found = [(-1, 0)]
        for stage in range(self.stages):
            found += [(stage, layer) for layer in range(self.layers_down)]
            found += [(stage, -1)] if stage < self.stages - 1 else []
        return found


@dataclass(frozen=True)
class Names:
    """What the student's weights are called in the teacher."""

    student: Depths
    teacher: Depths

    def in_teacher(self, name: str) -> str:
        """The teacher's name for a weight; that of no weight if the teacher has none."""
        if found := re.match(r"up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", name):
            stage, kind, layer, rest = found.groups()
            is_last = int(layer) == self.student.layers_up - 1
            above = self.teacher.layers_up - 1 if is_last else int(layer)
            return f"up_blocks.{self._stage_up(stage)}.{kind}.{above}.{rest}"
        if found := re.match(r"up_blocks\.(\d+)\.(.*)", name):
            return f"up_blocks.{self._stage_up(found[1])}.{found[2]}"
        if found := re.match(r"controlnet_down_blocks\.(\d+)\.(.*)", name):
            of = self.student.residuals()[int(found[1])]
            theirs = self.teacher.residuals()
            return f"controlnet_down_blocks.{theirs.index(of)}.{found[2]}" if of in theirs else ""
        return name

    def _stage_up(self, stage: str) -> int:
        return int(stage) + self.teacher.stages - self.student.stages


def count(pattern: str, names: dict[str, Tensor]) -> int:
    """One more than the largest number that ``pattern`` finds, 0 if it finds none."""
    found = [int(match[1]) for name in names if (match := re.match(pattern, name))]
    return max(found, default=-1) + 1
