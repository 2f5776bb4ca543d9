"""The models that the page lists."""

from __future__ import annotations

from pipeline.config import TINY_PRESET
from stream.config import ModelEntry


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
