"""Ways to run the model; see :mod:`pipeline.engines.engine` for what they share."""

from pipeline.engines.engine import (
    Conditioning,
    Engine,
    Image,
    Job,
    PixelFormat,
    Settings,
    Size,
    Style,
    TemporalState,
    image_shape,
)

__all__ = [
    "Conditioning",
    "Engine",
    "Image",
    "Job",
    "PixelFormat",
    "Settings",
    "Size",
    "Style",
    "TemporalState",
    "image_shape",
]
