"""The models that the page lists."""

from __future__ import annotations

from pipeline.config import TINY_PRESET
from pipeline.engines import Size
from stream.config import ModelEntry
from stream.status import EngineInfo


def list_models(running: str) -> list[ModelEntry]:
    """Every model this installation has, and which one is running."""
    return [
        ModelEntry(
            preset.name,
            preset.title,
            preset.licence,
            preset.size_mb,
            "running" if preset.name == running else "available",
        )
        for preset in (TINY_PRESET,)
    ]


def list_smaller_sizes(info: EngineInfo) -> tuple[Size, ...]:
    """What a running model may fall back to, largest first; empty: its size is its size.

    A CUDA graph keeps its size: to capture another one beside it takes long and much memory.
    """
    for preset in (TINY_PRESET,):
        if (preset.name, preset.default_size) == (info.model, info.size):
            return () if info.name == "cuda-graph" else preset.smaller_sizes
    return ()
