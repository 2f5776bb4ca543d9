"""The engine of machines without a GPU: OpenVINO, one picture at a time.

What it runs is a step that was compiled for one size, by :mod:`pipeline.engines.openvino_tiny`
without torch, or by :mod:`pipeline.engines.openvino_loaded` from a model that torch has loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import openvino
from numpy.typing import NDArray

from pipeline.engines.engine import Conditioning, Image, Job, PixelFormat, Size, Style
from pipeline.engines.precision import Numbers
from pipeline.engines.runtime import get_core
from pipeline.errors import EngineClosed, EngineError
from pipeline.noise import make_noise


@dataclass(frozen=True)
class CompiledStep:
    """A model's step, ready to run at one size, and what else an engine must know of it."""

    model: str
    compiled: openvino.CompiledModel
    """Takes :class:`pipeline.translate.StepInputs` of one row."""
    size: Size
    latent_channels: int
    encode_prompt: Callable[[str], Conditioning]
    default_strength: float
    styles: tuple[Style, ...] = ()


class OpenVinoEngine:
    """Runs a compiled step on the CPU."""

    name = "openvino"
    pixel_format: PixelFormat = "rgb24"
    max_batch = 1

    def __init__(self, step: CompiledStep, threads: int) -> None:
        self.size = step.size
        self.model = step.model
        self.styles = step.styles
        self.default_strength = step.default_strength
        self.encode_prompt = step.encode_prompt
        height, width = step.size.height, step.size.width
        self._noise_shape = (step.latent_channels, height // 8, width // 8)
        self._pixels_shape = (1, 3, height, width)
        precision = step.compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.device = (
            f"{step.compiled.get_property('EXECUTION_DEVICES')[0]}, {threads} threads, "
            f"OpenVINO {openvino.__version__.split('-')[0]} in {precision}"
        )
        self._request: openvino.InferRequest | None = step.compiled.create_infer_request()

    def translate(self, jobs: Sequence[Job]) -> list[Image]:
        """See :class:`pipeline.engines.engine.Engine`."""
        if self._request is None:
            raise EngineClosed("the OpenVINO engine was used after it was closed")
        return [self._translate_one(self._request, job) for job in jobs]

    def close(self) -> None:
        """See :class:`pipeline.engines.engine.Engine`."""
        self._request = None

    def _translate_one(self, request: openvino.InferRequest, job: Job) -> Image:
        memory = job.state.memory
        is_first = not isinstance(memory, np.ndarray)
        if is_first:
            memory = np.zeros(self._pixels_shape, np.float32)
        stability = 0.0 if is_first else job.settings.stability
        inputs = [
            job.image[None],
            memory,
            make_noise(job.settings.seed, self._noise_shape)[None],
            job.conditioning.tokens[None],
            job.conditioning.pooled[None],
            scalar(job.settings.strength),
            scalar(stability),
        ]
        try:
            results = request.infer(inputs, share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed on a frame: {last_line(error)}") from error
        # Both lie in memory that the next call overwrites.
        job.state.memory = np.array(results[1])
        return np.array(results[0][0])


def compile_ir(
    ir: openvino.Model, threads: int, precision: Numbers = "f32"
) -> openvino.CompiledModel:
    """Compile an IR of fixed shapes for the processor."""
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        # The code generator for element-wise chains crashes on a group norm that is scaled by
        # an input (OpenVINO 2026.4.1); without it the step is as fast.
        "SNIPPETS_MODE": "DISABLE",
    }
    return get_core().compile_model(ir, "CPU", options)


def last_line(error: RuntimeError) -> str:
    """Return what an error of OpenVINO says, without where in its source it was found."""
    return str(error).strip().splitlines()[-1][:200]


def scalar(value: float) -> NDArray[np.float32]:
    """(1, 1, 1, 1), as the step takes its settings."""
    return np.full((1, 1, 1, 1), value, np.float32)
