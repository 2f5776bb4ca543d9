"""The address for a phone, and its QR code in the terminal."""

from __future__ import annotations

import io
import ipaddress
from urllib.parse import urlsplit

import segno

from stream.addresses import find_default_address, list_addresses
from stream.config import ServerConfig, is_loopback


def invite(config: ServerConfig, address: str, *, is_terminal: bool) -> str:
    """Return the lines that bring a phone to the page; none where it could not come.

    Args:
        config: what the server was told.
        address: of the page on this machine.
        is_terminal: a person reads them; otherwise a log may keep them, and then there is no
            token in them.
    """
    # Without HTTPS a phone's browser lends no camera.
    if not config.tls.is_served or is_loopback(config.host):
        return ""
    url = f"https://{_find_host(config)}:{urlsplit(address).port}/"
    if not is_terminal:
        return f"sdxs-live: for other machines: {url}"
    # After a # no server and no log gets to see it. Several tokens are several people's.
    url += f"#{config.token}" if config.token else ""
    return f"{to_terminal(url)}\nsdxs-live: for a phone: {url}"


def to_terminal(url: str) -> str:
    """Return a QR code of half blocks."""
    out = io.StringIO()
    segno.make(url, error="m", micro=False).terminal(out, compact=True, border=2)
    return out.getvalue()


def _find_host(config: ServerConfig) -> str:
    """Return by which name or address other machines reach this one."""
    if config.names:
        return config.names[0]
    try:
        bound = ipaddress.ip_address(config.host)
    except ValueError:
        return config.host
    if bound.is_unspecified:
        own = [each for each in list_addresses() if each.version == bound.version]
        default = find_default_address()
        bound = default if default in own else next(iter(own), bound)
    return f"[{bound}]" if bound.version == 6 else str(bound)
