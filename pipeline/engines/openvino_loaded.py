"""Models that torch has loaded, for OpenVINO: traced and compiled for one size at the start."""

from __future__ import annotations

import logging
import time

import torch

from pipeline.config import check_size
from pipeline.engines.engine import Size
from pipeline.engines.openvino import CompiledStep, compile_ir, last_line
from pipeline.engines.openvino_ir import fix_timestep, to_ir
from pipeline.engines.precision import Numbers
from pipeline.errors import EngineError
from pipeline.hub import Progress
from pipeline.image_condition import ControlStep
from pipeline.loaded import LoadedModel
from pipeline.sketch import SketchStep
from pipeline.translate import StepInputs

logger = logging.getLogger(__name__)


def compile_loaded(
    model: LoadedModel,
    size: Size,
    threads: int,
    on_progress: Progress,
    precision: Numbers = "f32",
) -> CompiledStep:
    """Compile a model that torch has loaded; takes the time of a few frames, and changes it.

    Raises:
        ConfigError: it cannot work at this size.
        EngineError: OpenVINO does not take the model.
    """
    check_size(size, model.size_step_px)
    torch.set_num_threads(threads)
    model.to(torch.device("cpu"), torch.float32)
    if isinstance(model.step, ControlStep | SketchStep):
        for network in (model.step.unet, model.step.control):
            fix_timestep(network, model.step.get_buffer("timestep"))
    started_s = time.perf_counter()
    on_progress(f"converting {model.name} for OpenVINO", None)
    inputs = example_inputs(model, size)
    try:
        ir = to_ir(model.step, inputs)
        ir.reshape({index: list(tensor.shape) for index, tensor in enumerate(inputs)})
        on_progress(f"compiling {model.name} for this processor", None)
        compiled = compile_ir(ir, threads, precision)
    except RuntimeError as error:
        raise EngineError(
            f"OpenVINO does not take {model.name} ({last_line(error)}); --engine eager runs it"
        ) from error
    logger.info("converted %s in %.0f s", model.name, time.perf_counter() - started_s)
    return CompiledStep(
        model.name,
        compiled,
        size,
        model.latent_channels,
        model.encode_prompt,
        model.default_strength,
        model.styles,
    )


def example_inputs(model: LoadedModel, size: Size) -> StepInputs:
    """Inputs of the very size: SDXL's networks are told it by constants."""
    height, width = size.height, size.width
    return StepInputs(
        torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8),
        torch.zeros(1, 3, height, width),
        torch.randn(1, model.latent_channels, height // 8, width // 8),
        torch.randn(1, *model.tokens),
        torch.randn(1, model.pooled),
        torch.full((1, 1, 1, 1), 0.5),
        torch.full((1, 1, 1, 1), 0.5),
    )
