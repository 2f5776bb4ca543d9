"""The step's stages, each exported on its own, to see where the time goes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.engines.engine import Size
from pipeline.engines.openvino import compile_ir
from pipeline.engines.openvino_ir import to_ir
from pipeline.engines.precision import Numbers
from pipeline.tiny import TinyModel


class UNetStage(nn.Module):
    """The one U-Net call and x_0."""

    def __init__(self, model: TinyModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, noise: Tensor, latents: Tensor, tokens: Tensor, pooled: Tensor) -> Tensor:
        """See :meth:`pipeline.tiny.TinyModel.predict`."""
        return self.model.predict(noise, latents, tokens, pooled)


Stage = tuple[nn.Module, tuple[Tensor, ...]]
"""A module, and inputs for one call of it."""


def make_stages(model: TinyModel, size: Size) -> list[Stage]:
    """Encoder, U-Net and decoder with random inputs of one size."""
    config = model.config
    pixels = torch.rand(1, 3, size.height, size.width)
    latents, skip = model.encoder(pixels)
    conditioning = (
        torch.randn(1, config.tokens, config.token_dim),
        torch.randn(1, config.token_dim),
    )
    return [
        (model.encoder, (pixels,)),
        (UNetStage(model), (latents, latents, *conditioning)),
        (model.decoder, (latents, skip)),
    ]


def compile_stages(
    model: TinyModel, size: Size, threads: int, precision: Numbers = "f32"
) -> list[Callable[[], object]]:
    """Compile each stage for OpenVINO; each call runs one."""
    stages = make_stages(model, size)
    return [compile_stage(stage, inputs, threads, precision) for stage, inputs in stages]


def bind_stages(model: TinyModel, size: Size, threads: int) -> list[Callable[[], object]]:
    """Each stage as the eager engine runs it; each call runs one."""
    torch.set_num_threads(threads)
    return [partial(run_stage, stage, inputs) for stage, inputs in make_stages(model, size)]


@torch.inference_mode()
def run_stage(stage: nn.Module, inputs: tuple[Tensor, ...]) -> object:
    """Call one module, without what training would need."""
    return stage(*inputs)


def compile_stage(
    stage: nn.Module, inputs: tuple[Tensor, ...], threads: int, precision: Numbers
) -> Callable[[], object]:
    """Export and compile one module for fixed shapes."""
    ir = to_ir(stage, inputs)
    ir.reshape({index: list(tensor.shape) for index, tensor in enumerate(inputs)})
    request = compile_ir(ir, threads, precision).create_infer_request()
    arrays = [tensor.numpy() for tensor in inputs]
    return lambda: request.infer(arrays, share_inputs=True, share_outputs=True)
