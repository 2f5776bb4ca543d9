"""Choose an engine once, at the start, and say why."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.config import TINY_PRESET, check_size
from pipeline.engines.cuda_build import build_cuda_engine, why_no_cuda
from pipeline.engines.engine import Engine, Size
from pipeline.errors import ConfigError
from pipeline.weights import TINY_IR, TINY_WEIGHTS, embedded

logger = logging.getLogger(__name__)

EngineName = Literal["auto", "cuda", "eager", "openvino"]
ENGINE_NAMES: tuple[EngineName, ...] = ("auto", "cuda", "openvino", "eager")

Progress = Callable[[str, float | None], None]
"""Told what is done to load a model, for a person, and the share of it in [0, 1], if known."""


@dataclass(frozen=True)
class EngineConfig:
    """What to run, and on what."""

    model: str = TINY_PRESET.name
    engine: EngineName = "auto"
    size: Size | None = None
    """None for the preset's own."""
    threads: int = 0
    """Of the processor; 0 for as many as this process may use."""

    def __post_init__(self) -> None:
        if self.model != TINY_PRESET.name:
            raise ConfigError(f'--model knows "{TINY_PRESET.name}" (got "{self.model}")')
        if self.size is not None:
            check_size(self.size)
        if not 0 <= self.threads <= 256:
            raise ConfigError(f"--threads takes 0 to 256, 0 for all (got {self.threads})")


def count_processors() -> int:
    """Return how many processors this process may use; where nobody says, all there are."""
    count = getattr(os, "process_cpu_count", None)  # from Python 3.13 on
    if count is None and hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return (count or os.cpu_count)() or 1


def build_engine(config: EngineConfig, on_progress: Progress | None = None) -> Engine:
    """Load a model and make it ready for its first frame; takes a second to some seconds.

    Args:
        config: what to run, and on what.
        on_progress: called in this thread and in those that download.

    Raises:
        CheckpointError: weights are missing or do not fit.
        EngineError: CUDA was asked for and cannot be used.
    """
    if on_progress is not None:
        on_progress(f"loading {config.model}", None)
    size = config.size or TINY_PRESET.default_size
    threads = config.threads or count_processors()
    engine: Engine
    no_cuda = why_no_cuda() if config.engine == "auto" else ""
    if config.engine == "cuda" or (config.engine == "auto" and not no_cuda):
        engine = build_cuda_engine(size)
        reason = "asked for" if config.engine == "cuda" else "a CUDA device was found"
    elif config.engine == "eager":
        from pipeline.checkpoint import load_tiny
        from pipeline.engines.eager import EagerEngine

        engine = EagerEngine(load_tiny(embedded(TINY_WEIGHTS)), size, threads)
        reason = "asked for"
    else:
        from pipeline.engines.openvino import OpenVinoEngine

        engine = OpenVinoEngine(embedded(TINY_IR), embedded(TINY_WEIGHTS), size, threads)
        reason = "asked for" if config.engine == "openvino" else no_cuda
    logger.info("engine %s: %s, %s on %s", engine.name, reason, size, engine.device)
    return engine
