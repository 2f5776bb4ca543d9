"""The border between ``stream`` and ``pipeline``: what an engine takes and gives.

Free of torch and OpenVINO, so that the server imports it in a millisecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError

Image = NDArray[np.uint8]
"""``"rgb24"``: (H, W, 3) RGB. ``"yuv420p"``: (H * 3 / 2, W), I420 planes one below the other."""

PixelFormat = Literal["rgb24", "yuv420p"]


@dataclass(frozen=True, slots=True)
class Size:
    """A picture's width and height in pixels."""

    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ConfigError(f"a size needs a width and a height above 0 (got {self})")

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @classmethod
    def parse(cls, text: str) -> Size:
        """Read ``"320x240"``, or ``"256"`` for a square.

        Raises:
            ConfigError: the text is neither form.
        """
        parts = text.lower().split("x")
        if len(parts) > 2 or not all(part.isdecimal() for part in parts):
            raise ConfigError(f'a size is written "320x240" or "256" (got "{text}")')
        return cls(int(parts[0]), int(parts[-1]))


def image_shape(size: Size, pixel_format: PixelFormat) -> tuple[int, ...]:
    """Return the shape of an :data:`Image`."""
    if pixel_format == "rgb24":
        return size.height, size.width, 3
    return size.height * 3 // 2, size.width


@dataclass(frozen=True, slots=True)
class Style:
    """A look that the model knows by name."""

    name: str
    synonyms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """What a prompt means to the U-Net."""

    prompt: str
    tokens: NDArray[np.float32]
    """(T, D): what cross-attention reads."""
    pooled: NDArray[np.float32]
    """(P,): what is added to the time embedding; P may be 0."""

    def towards(self, other: Conditioning, weight: float) -> Conditioning:
        """Return the mixture at ``weight`` in [0, 1] of the way to ``other``."""
        return Conditioning(
            other.prompt,
            self.tokens + np.float32(weight) * (other.tokens - self.tokens),
            self.pooled + np.float32(weight) * (other.pooled - self.pooled),
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """What a viewer may set for every frame; checked where it enters."""

    strength: float = 1.0
    """In [0, 1]: 0 is the autoencoder's picture of the camera, 1 the full style."""
    seed: int = 0
    """In [0, 2**31): which noise. The same seed gives the same noise on every frame."""
    stability: float = 0.5
    """In [0, 1]: how strongly consecutive frames are kept alike."""


@dataclass(slots=True)
class TemporalState:
    """One session's memory of its last frame. Filled and read by the engine alone."""

    memory: Any = None

    def forget(self) -> None:
        """Start afresh with the next frame, as after a scene cut."""
        self.memory = None


@dataclass(slots=True)
class Job:
    """One session's share of a batch."""

    image: Image
    """At the engine's size, in the engine's pixel format. Not kept, not written to."""
    conditioning: Conditioning
    settings: Settings = field(default_factory=Settings)
    state: TemporalState = field(default_factory=TemporalState)


class Engine(Protocol):
    """Makes one picture from one picture, for several sessions at once.

    Used from one thread only, but for ``encode_prompt``. The eager engine is the reference;
    every other engine gives the same pictures, faster.
    """

    name: str
    """``"eager"``, ``"openvino"``, ``"cuda-graph"``."""
    device: str
    """For a person: the processor and what was decided about it."""
    model: str
    """The preset's name."""
    size: Size
    """Pixels the model works at; fixed while the engine lives."""
    pixel_format: PixelFormat
    max_batch: int
    styles: tuple[Style, ...]
    """The looks known by name; empty for a model that takes free text."""
    default_strength: float
    """What shows a picture that is both the camera's and the prompt's."""

    def encode_prompt(self, prompt: str) -> Conditioning:
        """Turn words into conditioning; cached by text. In any thread, beside ``translate``.

        Raises:
            PromptError: the model does not know the words.
        """

    def translate(self, jobs: Sequence[Job]) -> list[Image]:
        """Translate 1 to ``max_batch`` pictures; a result depends on its own job alone.

        Returns:
            New arrays, one a job, which the caller owns; same size and pixel format.

        Raises:
            EngineError: the engine cannot go on.
        """

    def close(self) -> None:
        """Free everything. Calling it again does nothing."""
