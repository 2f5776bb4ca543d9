"""What the method needs to know of a family of models: its data, its networks, its pictures.

Two families are trained by the same stages: the embedded one, told a style and the
camera's picture, and Stable Diffusion's, told a prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from diffusers import ControlNetModel
from torch import Tensor, nn

from pipeline.training.chain import Chain
from pipeline.training.denoiser import Condition, Denoiser
from pipeline.training.draws import Draw
from pipeline.training.methods import Method
from pipeline.training.networks import UNetLayout


@dataclass(frozen=True)
class Example:
    """One batch: what the networks are told, and the pictures where the data has them."""

    told: Condition
    untold: Condition
    """The same without style or prompt, for guidance."""
    shape: tuple[int, int, int, int]
    """Of the latents."""
    clean: Tensor | None = None
    """Latents (B, C, h, w) of the pictures that are wanted."""
    photos: Tensor | None = None
    """(B, 3, H, W) in [-1, 1]: what the camera saw."""
    targets: Tensor | None = None
    """(B, 3, H, W) in [-1, 1]: the pictures that are wanted."""
    skip: Tensor | None = None
    """The encoder's finer features of the photos, which the small decoder reads."""

    @property
    def blind(self) -> Example:
        """The same, told nothing of the photo."""
        told, untold = without_photo(self.told), without_photo(self.untold)
        return replace(self, told=told, untold=untold)

    @property
    def guided(self) -> tuple[Condition, Condition]:
        """Both conditions, as samplers take them."""
        return self.told, self.untold


class Family(Protocol):
    """A family of models at one size."""

    method: Method
    device: str
    chain: Chain

    def draw(self, draw: Draw, batch: int, photo_drop: float | None = None) -> Example:
        """Draw a batch; ``photo_drop`` where it is not the method's own."""
        ...

    def preview(self) -> Example:
        """A few examples that stay the same, held out where there is something to hold out."""
        ...

    def load_teacher(self) -> Denoiser:
        """What the student is cut from, frozen."""
        ...

    def load_offline(self) -> Denoiser:
        """The multi-step model whose score is distilled, frozen."""
        ...

    def load_few_step_teacher(self) -> Denoiser:
        """What the sampler draws with, frozen."""
        ...

    def build_denoiser(self, layout: UNetLayout) -> Denoiser:
        """One with random weights."""
        ...

    def load_teacher_control(self) -> ControlNetModel:
        """The multi-step control network, frozen."""
        ...

    def load_teacher_decoder(self) -> nn.Module:
        """The image decoder that is distilled, frozen."""
        ...

    def build_decoder(self) -> nn.Module:
        """The small image decoder, with random weights."""
        ...

    def decode(self, decoder: nn.Module, latents: Tensor, example: Example) -> Tensor:
        """Latents → pixels (B, 3, H, W), about [-1, 1], by either decoder."""
        ...

    def noise(self, example: Example) -> Tensor:
        """Noise for pictures that are to be compared: the same every time."""
        ...


def freeze(network: nn.Module) -> nn.Module:
    """Keep a network as it is; gradients may still pass through it."""
    return network.eval().requires_grad_(False)


def without_photo(condition: Condition) -> Condition:
    """The condition of a model that is not shown the photo."""
    if condition.joined is None:
        return condition
    return replace(condition, joined=torch.zeros_like(condition.joined))
