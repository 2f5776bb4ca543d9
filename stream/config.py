"""How the server runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aiortc import RTCPeerConnection

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
    max_frame_pixels: int = 4096 * 2304
    """A larger frame ends its session."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigRefused(f"--port must be from 0 to 65535 (got {self.port})")
        if self.max_sessions < 1:
            raise ConfigRefused(f"--max-sessions must be at least 1 (got {self.max_sessions})")


def _leave_peer(_: RTCPeerConnection) -> None:
    """Take a peer connection as aiortc makes it."""


def _leave_answer(answer: str) -> str:
    """Take an answer as aiortc makes it."""
    return answer


@dataclass(frozen=True, slots=True)
class PeerTuning:
    """What is done to each peer connection beside negotiating it."""

    configure: Callable[[RTCPeerConnection], None] = _leave_peer
    """Called when both descriptions are about to be set, before any packet."""
    shape_answer: Callable[[str], str] = _leave_answer
    """Called with the answer's SDP; what it returns goes to the peer."""


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
