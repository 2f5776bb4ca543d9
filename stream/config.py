"""How the server runs."""

from __future__ import annotations

from dataclasses import dataclass

from stream.errors import ConfigRefused


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where the server listens and how much it takes; checked when it is made."""

    host: str = "127.0.0.1"
    """The address to listen on; ``0.0.0.0`` for every IPv4 one."""
    port: int = 8080
    """0 for any free one."""
    names: tuple[str, ...] = ()
    """Host names that browsers reach the server by, other than ``localhost``."""
    max_sessions: int = 8
    """More are answered 503."""
    connect_timeout_s: float = 15.0
    """How long a peer may take from the answer to the connection; aioice waits forever."""
    close_timeout_s: float = 5.0
    """How long the end of a session may take."""
    stats_interval_s: float = 0.5
    """Between two messages of statistics."""
    start_bitrate_bps: int = 2_500_000
    """What browsers are told to begin with; does for 1280x720."""
    max_frame_pixels: int = 4096 * 2304
    """A larger frame ends its session."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigRefused(f"--port must be from 0 to 65535 (got {self.port})")
        if self.max_sessions < 1:
            raise ConfigRefused(f"--max-sessions must be at least 1 (got {self.max_sessions})")


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One line of the list of models."""

    name: str
    title: str
    licence: str
    size_mb: float
    state: str
    """``"running"``, ``"available"``, ``"loading"`` or ``"missing"``."""
    detail: str = ""
