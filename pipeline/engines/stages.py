"""The step's stages, each exported on its own, to see where the time goes."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import openvino
import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from pipeline.engines.engine import Size
from pipeline.engines.openvino import COMPILE_OPTIONS
from pipeline.tiny import TinyModel


class UNetStage(nn.Module):
    """The one U-Net call and x_0."""

    def __init__(self, model: TinyModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, noise: Tensor, latents: Tensor, tokens: Tensor, pooled: Tensor) -> Tensor:
        """See :meth:`pipeline.tiny.TinyModel.predict`."""
        return self.model.predict(noise, latents, tokens, pooled)


def compile_stages(model: TinyModel, size: Size, threads: int) -> list[Callable[[], object]]:
    """Compile encoder, U-Net and decoder at one size; each call runs one on random inputs."""
    config = model.config
    pixels = torch.rand(1, 3, size.height, size.width)
    latents, skip = model.encoder(pixels)
    conditioning = (
        torch.randn(1, config.tokens, config.token_dim),
        torch.randn(1, config.token_dim),
    )
    return [
        compile_stage(model.encoder, (pixels,), threads),
        compile_stage(UNetStage(model), (latents, latents, *conditioning), threads),
        compile_stage(model.decoder, (latents, skip), threads),
    ]


def compile_stage(
    stage: nn.Module, inputs: tuple[Tensor, ...], threads: int
) -> Callable[[], object]:
    """Export and compile one module for fixed shapes."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", TracerWarning)
        ir = openvino.convert_model(stage.eval(), example_input=inputs)
    ir.reshape({index: list(tensor.shape) for index, tensor in enumerate(inputs)})
    options = {**COMPILE_OPTIONS, "INFERENCE_NUM_THREADS": threads}
    request = openvino.Core().compile_model(ir, "CPU", options).create_infer_request()
    arrays = [tensor.numpy() for tensor in inputs]
    return lambda: request.infer(arrays, share_inputs=True, share_outputs=True)
