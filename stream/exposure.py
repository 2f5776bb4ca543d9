"""How much a server that strangers reach gives each of them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Literal

from stream.errors import ConfigRefused

RateLimit = Literal["auto", "on", "off"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Exposure:
    """Bounds for strangers; checked when it is made."""

    rate_limit: RateLimit = "auto"
    """Whether an address may ask only so often; see :attr:`ServerConfig.limits_rates`."""
    min_fps: float = 10.0
    """A new session is taken while everybody gets so many frames a second; 0: always."""
    max_waiting: int = 50
    """Who finds no room waits in line; more are refused."""
    idle_timeout_s: float = 300.0
    """How long a session may be of no use: without a picture, or hidden and watched by nobody;
    0: for ever."""
    max_session_s: float = 0.0
    """The longest that a session may last; 0: as long as it likes."""
    drain_s: float = 5.0
    """How long sessions may go on after SIGTERM."""
    proxies: tuple[str, ...] = ()
    """Addresses or networks whose ``X-Forwarded-For`` is believed."""

    @property
    def proxy_networks(self) -> tuple[Network, ...]:
        """The proxies, as networks."""
        return tuple(ipaddress.ip_network(proxy) for proxy in self.proxies)

    def __post_init__(self) -> None:
        if not 0 <= self.min_fps <= 120:
            raise ConfigRefused(f"--min-fps takes 0 to 120 (got {self.min_fps:g})")
        if not 0 <= self.max_waiting <= 1000:
            raise ConfigRefused(f"--max-waiting takes 0 to 1000 (got {self.max_waiting})")
        for name in ("idle_timeout_s", "max_session_s"):
            limit_s = getattr(self, name)
            if not (limit_s == 0 or 1 <= limit_s <= 604_800):
                flag = name.replace("_", "-")
                raise ConfigRefused(f"--{flag} takes 1 to 604800, 0 for never (got {limit_s:g})")
        if not 0 <= self.drain_s <= 86_400:
            raise ConfigRefused(f"--drain-s takes 0 to 86400 (got {self.drain_s:g})")
        for proxy in self.proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError:
                raise ConfigRefused(
                    f'--proxy must be an address or a network like "10.0.0.0/8" (got {proxy!r})'
                ) from None
