"""How the server runs."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from stream.addresses import Address
from stream.bitrate import DEFAULT_CAP_BPS, MIN_BITRATE_BPS
from stream.corrections import Corrections
from stream.errors import ConfigRefused
from stream.exposure import Exposure
from stream.gathering import PortRange
from stream.ice_servers import IceServer, check_secret
from stream.keeping import Keeping
from stream.tls import Tls
from stream.tokens import OPERATOR, Token, check_distinct

ModelSwitch = Literal["auto", "on", "off"]


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
    """More are answered 503, or sent to ``redirect_to``."""
    max_viewers: int = 32
    """Of all sessions together; more are answered 503."""
    token: str = field(default="", repr=False)
    """What requests have to bring, but for the page itself; empty, without ``tokens``: nothing."""
    tokens: tuple[Token, ...] = ()
    """More of them, by name, each with its quota; see :mod:`stream.tokens`."""
    origins: tuple[str, ...] = ()
    """Pages elsewhere that may use this server, such as ``https://example.org``."""
    ice_servers: tuple[IceServer, ...] = ()
    """What the page and standard clients are told to use."""
    turn_secret: str = field(default="", repr=False)
    """What the TURN servers without a user share with this one; see :mod:`stream.ice_servers`."""
    public_ip: Address | None = None
    """What strangers reach this machine by, through a 1:1 NAT."""
    udp_ports: PortRange | None = None
    """Where media come in; None: any port that is free."""
    tls: Tls = field(default_factory=Tls)
    """Whose certificate browsers see."""
    is_insecure: bool = False
    """Whether the server may listen where it keeps nobody out."""
    is_public: bool = False
    """Whether strangers reach the server: then no datagram goes where a peer's candidate
    points inside of a network. :func:`stream.server.serve` finds out."""
    redirect_to: str = ""
    """Where another server is, such as ``https://two.example.org``, for when this is full."""
    connect_timeout_s: float = 15.0
    """How long a peer may take from the answer to the connection; aioice waits forever."""
    silence_timeout_s: float = 12.0
    """How long a connected peer may send nothing at all. Browsers ask for consent every 2.5 to
    6 s (RFC 7675), and report every second what they receive; aioice waits 30 s and more."""
    close_timeout_s: float = 5.0
    """How long the end of a session may take."""
    stats_interval_s: float = 0.5
    """Between two messages of statistics."""
    start_bitrate_bps: int = 2_500_000
    """What browsers are told to begin with; does for 1280x720."""
    max_bitrate_bps: int = DEFAULT_CAP_BPS
    """No video that is sent gets more, whatever its size."""
    max_frame_pixels: int = 4096 * 2304
    """A larger frame ends its session."""
    target_ms: float = 120.0
    """The delay above which the model works smaller or on fewer frames; 0: it never does."""
    is_size_fixed: bool = False
    """Whether the model keeps its size; then only fewer frames are left."""
    model_switch: ModelSwitch = "auto"
    """Whether a request may have another model loaded, for everybody; see
    :attr:`may_switch_model`."""
    presets: Path | None = None
    """The file of presets and playlists, which need not exist; None: there are none."""
    log_every_s: float = 60.0
    """Between two lines of figures in the log, while sessions are open; 0: none."""
    corrections: Corrections = field(default_factory=Corrections)
    """What of aiortc is corrected; see :mod:`stream.rtp`."""
    exposure: Exposure = field(default_factory=Exposure)
    """How much each stranger is given."""
    keeping: Keeping = field(default_factory=Keeping)
    """What may be kept of the sessions."""

    @property
    def is_private(self) -> bool:
        """Whether only who has this machine gets at it: on loopback, under no other name."""
        return is_loopback(self.host) and not self.names and not self.origins

    @property
    def limits_rates(self) -> bool:
        """Whether an address may ask only so often; ``"auto"``: where strangers get at it."""
        wish = self.exposure.rate_limit
        return wish == "on" or (wish == "auto" and not self.is_private)

    @property
    def may_switch_model(self) -> bool:
        """Whether a request may have another model loaded.

        ``"auto"``: where only the operator gets at it, or with the one token; not where
        several share the server.
        """
        return self.model_switch == "on" or (self.model_switch == "auto" and self.is_guarded)

    @property
    def is_guarded(self) -> bool:
        """Whether what concerns everybody is asked for by the operator alone."""
        return not self.tokens and (bool(self.token) or self.is_private)

    @property
    def own_stun_server(self) -> IceServer | None:
        """What this machine learns its own public addresses from, if it needs to.

        Not where ``public_ip`` says it, nor where all peers are on this machine: on loopback,
        and not under the name that a proxy has.
        """
        is_alone = is_loopback(self.host) and not self.names
        if self.public_ip is not None or is_alone:
            return None
        return next((each for each in self.ice_servers if each.url.startswith("stun:")), None)

    @property
    def all_tokens(self) -> tuple[Token, ...]:
        """The operator's, if there is one, and the named ones."""
        return (*([Token(OPERATOR, self.token)] if self.token else []), *self.tokens)

    def __post_init__(self) -> None:
        check_distinct(self.all_tokens)
        check_secret(self.ice_servers, self.turn_secret)
        if not 0 <= self.port <= 65535:
            raise ConfigRefused(f"--port must be from 0 to 65535 (got {self.port})")
        if self.max_sessions < 1:
            raise ConfigRefused(f"--max-sessions must be at least 1 (got {self.max_sessions})")
        if self.max_viewers < 0:
            raise ConfigRefused(f"--max-viewers must be at least 0 (got {self.max_viewers})")
        if not (self.target_ms == 0 or 10 <= self.target_ms <= 10_000):
            raise ConfigRefused(
                f"--target-ms takes 10 to 10000, 0 for none (got {self.target_ms:g})"
            )
        if not (self.log_every_s == 0 or 1 <= self.log_every_s <= 86_400):
            raise ConfigRefused(
                f"--log-every-s takes 1 to 86400, 0 for never (got {self.log_every_s:g})"
            )
        for name in ("start", "max"):
            bitrate_bps = getattr(self, f"{name}_bitrate_bps")
            if bitrate_bps < MIN_BITRATE_BPS:
                raise ConfigRefused(
                    f"--{name}-bitrate-kbps must be at least {MIN_BITRATE_BPS // 1000} "
                    f"(got {bitrate_bps // 1000})"
                )
        for name, origins in (("origin", self.origins), ("redirect-to", (self.redirect_to,))):
            for origin in filter(None, origins):
                if not _is_origin(origin):
                    raise ConfigRefused(
                        f'--{name} must be like "https://example.org", without a path '
                        f"(got {origin!r})"
                    )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine gets at an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and text == f"{parts.scheme}://{parts.netloc}"
