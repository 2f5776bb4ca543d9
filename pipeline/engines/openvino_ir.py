"""From torch to OpenVINO's IR."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import openvino
import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning


def to_ir(module: nn.Module, inputs: Sequence[Tensor]) -> openvino.Model:
    """Trace a module with inputs like those it will have, and convert it.

    The IR shares its weights with the module.
    """
    with torch.no_grad(), warnings.catch_warnings():
        # The tracer warns of every check of a shape in diffusers; none depends on the data.
        warnings.simplefilter("ignore", TracerWarning)
        # torch.export is the way on; what it gives of a U-Net is not known to draw the same.
        warnings.simplefilter("ignore", DeprecationWarning)
        # OpenVINO's own tracing runs the module once more, to see whether it gives the same.
        traced = torch.jit.trace(module.eval(), tuple(inputs), check_trace=False)  # type: ignore[no-untyped-call]
        return openvino.convert_model(traced, example_input=tuple(inputs))


class FixedEmbedding(nn.Module):
    """Stands for the embedding of the one timestep there is."""

    def __init__(self, embedding: Tensor) -> None:
        super().__init__()
        self.register_buffer("embedding", embedding)

    def forward(self, timestep_features: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the embedding; the arguments are those of diffusers' TimestepEmbedding."""
        del timestep_features, condition
        return self.get_buffer("embedding")


@torch.no_grad()
def fix_timestep(network: Any, timestep: Tensor) -> None:
    """Make the embedding of a network's one timestep a constant of it, in place.

    OpenVINO 2026.4.1 computes such a chain of constants once, and then adds what else conditions
    the network to it in place: every frame would start from the sum of all frames before.

    Args:
        network: a U-Net or a control network of diffusers.
        timestep: (1,).
    """
    features = network.time_proj(timestep).to(network.dtype)
    network.time_embedding = FixedEmbedding(network.time_embedding(features))
