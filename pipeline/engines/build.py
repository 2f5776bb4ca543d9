"""Choose an engine once, at the start, and say why."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.config import SKETCH_PRESET, TINY_PRESET, Lines, Preset, check_size
from pipeline.engines.cuda_build import build_cuda_engine, why_no_cuda
from pipeline.engines.engine import Engine, Size
from pipeline.engines.precision import Precision, choose_precision
from pipeline.errors import ConfigError, EngineError
from pipeline.hub import Progress, tell_nobody
from pipeline.sources import check_model, find_preset, locate
from pipeline.weights import SKETCH_WEIGHTS, TINY_IR, TINY_WEIGHTS, embedded

if TYPE_CHECKING:
    from pipeline.engines.cuda_graph import CudaGraphEngine
    from pipeline.engines.openvino import CompiledStep
    from pipeline.loaded import LoadedModel

logger = logging.getLogger(__name__)

EngineName = Literal["auto", "cuda", "eager", "openvino"]
ENGINE_NAMES: tuple[EngineName, ...] = ("auto", "cuda", "openvino", "eager")


@dataclass(frozen=True)
class EngineConfig:
    """What to run, and on what."""

    model: str = TINY_PRESET.name
    """A preset, a folder, or a hub id."""
    engine: EngineName = "auto"
    size: Size | None = None
    """None for the model's own."""
    threads: int = 0
    """Of the processor; 0 for as many as this process may use."""
    lora: str = ""
    """A look to make part of the model: a name, a file or a folder."""
    lines: Lines | None = None
    """How the camera's lines are drawn; None for the default, or where none are."""
    precision: Precision = "auto"
    """Of the OpenVINO engine."""

    def __post_init__(self) -> None:
        preset = check_model(self.model)
        if self.size is not None:
            check_size(self.size, preset.size_step_px if preset else TINY_PRESET.size_step_px)
        if not 0 <= self.threads <= 256:
            raise ConfigError(f"--threads takes 0 to 256, 0 for all (got {self.threads})")
        if self.precision != "auto" and self.engine != "openvino":
            raise ConfigError(
                f"--precision {self.precision} is of --engine openvino (got --engine {self.engine})"
            )
        if preset is not None:
            self.check_for(preset)

    def check_for(self, preset: Preset) -> None:
        """Refuse what a model could only ignore.

        Raises:
            ConfigError: a LoRA without a prompt, or lines where none are drawn.
        """
        if self.lora and not preset.free_text:
            raise ConfigError(f'{preset.name} takes no --lora (got "{self.lora}")')
        if self.lines is not None and preset.condition != "control":
            raise ConfigError(
                f"{preset.name} draws no lines: it takes neither --line-thickness nor --line-detail"
            )

    @property
    def is_embedded(self) -> bool:
        """Whether nothing has to be found or downloaded."""
        preset = find_preset(self.model)
        return preset is not None and preset.weights == "embedded"


def count_processors() -> int:
    """Return how many processors this process may use; where nobody says, all there are."""
    count = getattr(os, "process_cpu_count", None)  # from Python 3.13 on
    if count is None and hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return (count or os.cpu_count)() or 1


def build_engine(config: EngineConfig, on_progress: Progress | None = None) -> Engine:
    """Load a model and make it ready for its first frame; takes a second to minutes.

    Args:
        config: what to run, and on what.
        on_progress: called in this thread and in those that download.

    Raises:
        ConfigError: the model does not take a setting.
        CheckpointError: weights are missing or do not fit.
        EngineError: the engine that was asked for cannot be used.
    """
    progress = on_progress or tell_nobody
    progress(f"loading {config.model}", None)
    engine: Engine
    if config.engine == "auto":
        engine, reason = build_best(config, progress)
    else:
        build = build_on_card if config.engine == "cuda" else build_on_processor
        engine, reason = build(config, progress), "asked for"
    logger.info("engine %s: %s, %s on %s", engine.name, reason, engine.size, engine.device)
    return engine


def build_best(config: EngineConfig, progress: Progress) -> tuple[Engine, str]:
    """Load a model onto a card if there is one, else for the processor; return the reason too.

    Raises:
        EngineError: the card that is there cannot run a model that is too slow without one.
        CheckpointError: weights are missing or do not fit.
    """
    no_cuda = why_no_cuda()
    if not no_cuda:
        try:
            return build_on_card(config, progress), "a CUDA device was found"
        except EngineError as error:
            if not config.is_embedded:
                raise
            no_cuda = str(error)
            logger.warning("%s goes on without the card: %s", config.model, no_cuda)
    elif not config.is_embedded:
        logger.warning("%s is made for a CUDA card, and has none: %s", config.model, no_cuda)
    return build_on_processor(config, progress), no_cuda


def build_on_card(config: EngineConfig, progress: Progress) -> CudaGraphEngine:
    """Load any model onto the first card.

    Raises:
        EngineError: no card can be used; the message says why.
        CheckpointError: weights are missing or do not fit.
    """
    return build_cuda_engine(lambda: load_model(config, progress), config.size, progress)


def build_on_processor(config: EngineConfig, progress: Progress) -> Engine:
    """Load a model for this machine's processor.

    Raises:
        EngineError: OpenVINO does not take the model.
        CheckpointError: weights are missing or do not fit.
    """
    threads = config.threads or count_processors()
    if config.engine == "eager":
        from pipeline.engines.eager import EagerEngine

        model = load_model(config, progress)
        return EagerEngine(model, config.size or model.default_size, threads)
    from pipeline.engines.openvino import OpenVinoEngine

    return OpenVinoEngine(compile_step(config, threads, progress), threads)


def compile_step(config: EngineConfig, threads: int, progress: Progress) -> CompiledStep:
    """Compile a model for OpenVINO; ``sdxs-tiny`` needs no torch.

    Raises:
        EngineError: OpenVINO does not take the model.
        CheckpointError: weights are missing or do not fit.
    """
    if config.model == TINY_PRESET.name:
        from pipeline.engines.openvino_tiny import compile_tiny

        size = config.size or TINY_PRESET.default_size
        precision = choose_precision(config.precision)
        ir, weights = embedded(TINY_IR), embedded(TINY_WEIGHTS)
        return compile_tiny(ir, weights, size, threads, precision=precision)
    from pipeline.engines.openvino_loaded import compile_loaded

    model = load_model(config, progress)
    if config.is_embedded or config.precision != "auto":
        precision = choose_precision(config.precision)
    else:
        # Those that predict epsilon multiply what is rounded off by 14.6.
        precision = "f32"
    return compile_loaded(model, config.size or model.default_size, threads, progress, precision)


def load_model(config: EngineConfig, progress: Progress) -> LoadedModel:
    """Load a model onto the host.

    Raises:
        ConfigError: the model does not take a setting.
        CheckpointError: weights are missing or do not fit.
    """
    lines = config.lines or Lines()
    if config.model == TINY_PRESET.name:
        from pipeline.checkpoint import load_tiny
        from pipeline.loaded import to_loaded

        return to_loaded(load_tiny(embedded(TINY_WEIGHTS)))
    if config.model == SKETCH_PRESET.name:
        from pipeline.checkpoint import load_sketch
        from pipeline.loaded import to_loaded_sketch

        return to_loaded_sketch(load_sketch(embedded(SKETCH_WEIGHTS)), lines)
    from pipeline.published import load_published

    files = locate(config.model, config.lora, progress)
    config.check_for(files.preset)
    return load_published(files, lines, progress)
