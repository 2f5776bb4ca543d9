"""``sdxs-tiny`` for OpenVINO: from its saved IR, without torch.

The IR is exported once (``run.py train export``) from the module that the eager engine runs,
with any height and width; it is given the engine's size when it is loaded.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from pipeline.config import TINY, TINY_PRESET, TinyConfig, check_size
from pipeline.engines.engine import Size
from pipeline.engines.openvino import CompiledStep, compile_ir, last_line
from pipeline.engines.precision import Numbers
from pipeline.engines.runtime import get_core
from pipeline.engines.style_table import POOLED_KEY, TOKENS_KEY, StyleTable
from pipeline.errors import CheckpointError


def compile_tiny(
    ir: Path,
    weights: Path,
    size: Size,
    threads: int,
    config: TinyConfig = TINY,
    precision: Numbers = "f32",
) -> CompiledStep:
    """Read ``sdxs-tiny`` and compile it for one size.

    Raises:
        ConfigError: it cannot work at this size.
        CheckpointError: a file is missing, damaged or of another model.
    """
    check_size(size)
    table = StyleTable(read_styles(weights, config), config.styles)
    return CompiledStep(
        TINY_PRESET.name,
        compile_ir(read_saved(ir, size, config), threads, precision),
        size,
        config.autoencoder.latent_channels,
        table.encode,
        TINY_PRESET.default_strength,
        table.styles,
    )


def read_styles(path: Path, config: TinyConfig) -> dict[str, NDArray[np.float32]]:
    """Read the style table out of a safetensors file, by numpy.

    Raises:
        CheckpointError: the file is missing or damaged, or has another style table.
    """
    try:
        tensors = safetensors.numpy.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
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


def read_saved(ir: Path, size: Size, config: TinyConfig) -> openvino.Model:
    """Read the IR and fix its shapes.

    Raises:
        CheckpointError: the IR is missing, damaged or of another model.
    """
    shapes = {
        0: [1, size.height, size.width, 3],
        1: [1, 3, size.height, size.width],
        2: [1, config.autoencoder.latent_channels, size.height // 8, size.width // 8],
        3: [1, config.tokens, config.token_dim],
        4: [1, config.token_dim],
        5: [1, 1, 1, 1],
        6: [1, 1, 1, 1],
    }
    try:
        step = get_core().read_model(ir)
        step.reshape(shapes)
    except RuntimeError as error:
        raise CheckpointError(
            f"{ir.name} or the .bin beside it is missing, damaged or foreign: {last_line(error)}"
        ) from error
    return step
