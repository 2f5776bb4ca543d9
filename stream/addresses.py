"""This machine's addresses, and which addresses lie inside of a network."""

from __future__ import annotations

import ipaddress
import socket

import ifaddr

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Documentation's own (RFC 5737, RFC 3849): there is always a route or none, never a host. No
# datagram is sent.
_ELSEWHERE = {socket.AF_INET: "198.51.100.1", socket.AF_INET6: "2001:db8::1"}
# Prefixes of IPv6 that stand for an IPv4 address: translators (RFC 6052), 6to4, Teredo, and
# the mapped and compatible ones. No peer names itself so.
_EMBEDDING = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "::/96",
        "::ffff:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2002::/16",
        "2001::/32",
    )
)


def list_addresses() -> tuple[Address, ...]:
    """Return the addresses of this machine's interfaces, without loopback and link-local ones."""
    found: list[Address] = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            address = ipaddress.ip_address(ip.ip if isinstance(ip.ip, str) else ip.ip[0])
            if not (address.is_loopback or address.is_link_local) and address not in found:
                found.append(address)
    return tuple(found)


def find_default_address(family: socket.AddressFamily = socket.AF_INET) -> Address | None:
    """Return the address from which this machine reaches others; None: it reaches nobody."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((_ELSEWHERE[family], 9))
        except OSError:
            return None
        return ipaddress.ip_address(sock.getsockname()[0])


def is_inside(address: Address) -> bool:
    """Tell whether an address means another machine wherever it is used.

    True for loopback, link-local, private and shared ranges, for multicast and whatever is
    reserved, and for IPv6 addresses that stand for an IPv4 one.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if any(address in network for network in _EMBEDDING) or address.is_site_local:
            return True
        if address.scope_id is not None:
            return True
    return address.is_multicast or not address.is_global
