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
    proxies: tuple[str, ...] = ()
    """Addresses or networks whose ``X-Forwarded-For`` is believed."""

    @property
    def proxy_networks(self) -> tuple[Network, ...]:
        """The proxies, as networks."""
        return tuple(ipaddress.ip_network(proxy) for proxy in self.proxies)

    def __post_init__(self) -> None:
        for proxy in self.proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError:
                raise ConfigRefused(
                    f'--proxy must be an address or a network like "10.0.0.0/8" (got {proxy!r})'
                ) from None
