"""The answer of a server behind a 1:1 NAT: its candidates carry the public address."""

from __future__ import annotations

import ipaddress
import re

from stream.addresses import Address, is_inside

_CANDIDATE = re.compile(r"(a=candidate:\S+ \d+ udp \d+ )(\S+)( (\d+) typ host\b.*)")


def publish(answer: str, public: Address, own: Address | None) -> str:
    """Return an answer that tells the public address in place of the private one.

    Ports stay: the NAT hands each on as it is. What strangers cannot reach is left out, so
    that nobody learns of it.

    Args:
        answer: with all candidates.
        public: what strangers reach the server by.
        own: from which the machine reaches others: what the NAT hands on to.
    """
    head, *sections = answer.split("\r\nm=")
    return "\r\nm=".join([head, *(_publish_section(each, public, own) for each in sections)])


def _publish_section(section: str, public: Address, own: Address | None) -> str:
    lines = section.split("\r\n")
    found = {ipaddress.ip_address(match[2]) for match in map(_CANDIDATE.fullmatch, lines) if match}
    # The address that the NAT hands on to; without knowing it, any of them may be.
    behind = public if public in found else own
    kept: list[str] = []
    port = None
    for line in lines:
        match = _CANDIDATE.fullmatch(line)
        if match is None:
            kept.append(line)
            continue
        address = ipaddress.ip_address(match[2])
        if address.version == public.version and (address == behind or behind not in found):
            kept.append(f"{match[1]}{public}{match[3]}")
            port = port or match[4]
        elif not is_inside(address):
            kept.append(line)
    if port is not None:
        # What a peer without ICE would use has to be one of the candidates (RFC 8839, 4.2.1.2).
        kept[0] = re.sub(r" \d+ ", f" {port} ", kept[0], count=1)
        kept = [_to_connection(public) if line.startswith("c=") else line for line in kept]
    return "\r\n".join(kept)


def _to_connection(address: Address) -> str:
    return f"c=IN IP{address.version} {address}"
