"""The engine of machines without a GPU: OpenVINO, from a saved IR, without torch.

The IR is exported once (``run.py train export``) from the module that the eager engine runs,
with any height and width; it is given this engine's size when it is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino
import safetensors.numpy
from numpy.typing import NDArray

from pipeline.config import TINY, TinyConfig, check_size
from pipeline.engines.engine import Conditioning, Image, Job, PixelFormat, Size
from pipeline.engines.runtime import get_core
from pipeline.engines.style_table import POOLED_KEY, TOKENS_KEY, StyleTable
from pipeline.errors import CheckpointError, EngineClosed, EngineError
from pipeline.noise import make_noise

COMPILE_OPTIONS = {
    "PERFORMANCE_HINT": "LATENCY",
    # bf16 would be nine times slower on AVX2 (docs/log.md).
    "INFERENCE_PRECISION_HINT": "f32",
    # The code generator for element-wise chains crashes on a group norm that is scaled by an
    # input (OpenVINO 2026.4.1); without it the step is as fast.
    "SNIPPETS_MODE": "DISABLE",
}


class OpenVinoEngine:
    """Runs the exported step on the CPU, one picture at a time."""

    name = "openvino"
    pixel_format: PixelFormat = "rgb24"
    max_batch = 1

    def __init__(
        self, ir: Path, weights: Path, size: Size, threads: int = 2, config: TinyConfig = TINY
    ) -> None:
        self.size = check_size(size)
        self.model = "sdxs-tiny"
        self._noise_shape = (
            config.autoencoder.latent_channels,
            size.height // 8,
            size.width // 8,
        )
        self._pixels_shape = (1, 3, size.height, size.width)
        self._table = StyleTable(read_styles(weights, config), config.styles)
        self.styles = self._table.styles
        compiled = compile_step(ir, size, self._noise_shape, config, threads)
        self.device = (
            f"{compiled.get_property('EXECUTION_DEVICES')[0]}, {threads} threads, "
            f"OpenVINO {openvino.__version__.split('-')[0]} in float32"
        )
        self._request: openvino.InferRequest | None = compiled.create_infer_request()

    def encode_prompt(self, prompt: str) -> Conditioning:
        """See :class:`pipeline.engines.engine.Engine`."""
        return self._table.encode(prompt)

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
        is_first = memory is None
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


def last_line(error: RuntimeError) -> str:
    """Return what an error of OpenVINO says, without where in its source it was found."""
    return str(error).strip().splitlines()[-1][:200]


def scalar(value: float) -> NDArray[np.float32]:
    """(1, 1, 1, 1), as the step takes its settings."""
    return np.full((1, 1, 1, 1), value, np.float32)


def read_styles(path: Path, config: TinyConfig) -> dict[str, NDArray[np.float32]]:
    """Read the style table out of a safetensors file, by numpy.

    Raises:
        CheckpointError: the file is missing or damaged, or has another style table.
    """
    try:
        tensors = safetensors.numpy.load_file(path)
    except Exception as error:
        raise CheckpointError(f"{path.name} is missing, damaged or foreign: {error}") from error
    count = len(config.styles)
    for key, wanted in (
        (TOKENS_KEY, (count, config.tokens, config.token_dim)),
        (POOLED_KEY, (count, config.token_dim)),
    ):
        found = tensors[key].shape if key in tensors else None
        if found != wanted:
            raise CheckpointError(
                f"{path.name} does not fit sdxs-tiny: {key} is {found}, not {wanted}"
            )
    return {key: np.asarray(tensors[key], np.float32) for key in (TOKENS_KEY, POOLED_KEY)}


def compile_step(
    ir: Path, size: Size, noise_shape: tuple[int, int, int], config: TinyConfig, threads: int
) -> openvino.CompiledModel:
    """Read the IR, fix its shapes and compile it.

    Raises:
        CheckpointError: the IR is missing, damaged or of another model.
    """
    core = get_core()
    shapes = {
        0: [1, size.height, size.width, 3],
        1: [1, 3, size.height, size.width],
        2: [1, *noise_shape],
        3: [1, config.tokens, config.token_dim],
        4: [1, config.token_dim],
        5: [1, 1, 1, 1],
        6: [1, 1, 1, 1],
    }
    try:
        step = core.read_model(ir)
        step.reshape(shapes)
    except RuntimeError as error:
        raise CheckpointError(
            f"{ir.name} or the .bin beside it is missing, damaged or foreign: {last_line(error)}"
        ) from error
    options = {**COMPILE_OPTIONS, "INFERENCE_NUM_THREADS": threads}
    return core.compile_model(step, "CPU", options)
