"""What is known of the engine, readable from any thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from pipeline.engines import Engine, Size, Style


class EngineState(Enum):
    """Whether pictures are translated now."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine says of itself."""

    name: str
    device: str
    model: str
    size: Size
    styles: tuple[Style, ...]
    max_batch: int = 1
    default_strength: float = 1.0

    @classmethod
    def of(cls, engine: Engine) -> EngineInfo:
        """Copy it from a loaded engine, in the engine's thread."""
        return cls(
            engine.name,
            engine.device,
            engine.model,
            engine.size,
            tuple(engine.styles),
            engine.max_batch,
            engine.default_strength,
        )

    @property
    def default_prompt(self) -> str:
        """What an empty prompt stands for."""
        return self.styles[0].name if self.styles else ""

    def to_json(self) -> dict[str, str]:
        """Return it as the page shows it."""
        return {
            "name": self.name,
            "device": self.device,
            "model": self.model,
            "size": str(self.size),
        }


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """A state, the sentence that explains it, and the engine if there is one."""

    state: EngineState
    detail: str
    info: EngineInfo | None = None
    encode_prompt: Callable[[str], object] | None = field(default=None, compare=False, repr=False)
    """The engine's own; None while there is no ready engine."""

    @property
    def is_ready(self) -> bool:
        """Whether pictures are translated now."""
        return self.state is EngineState.READY
