"""Host candidates from a range of UDP ports, and a STUN server that holds up no answer.

aioice binds whichever port is free, which no firewall can be told of, and waits five seconds
for a STUN server that does not answer; OBS gives up after eight.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import random
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aioice.ice
from aioice import Candidate, Connection, turn
from aioice.candidate import candidate_foundation, candidate_priority

from stream.errors import ConfigRefused, ServerFull

logger = logging.getLogger(__name__)

STUN_TIMEOUT_S = 1.5

Gather = Callable[..., Awaitable[list[Candidate]]]


@dataclass(frozen=True, slots=True)
class PortRange:
    """UDP ports from one to another, both included; checked when it is made."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 1 <= self.first <= self.last <= 65535:
            raise ConfigRefused(
                f"--udp-ports must be like 50000-50100, from 1 to 65535 (got {self})"
            )

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    @classmethod
    def parse(cls, text: str) -> PortRange:
        """Read ``"50000-50100"``, or ``"50000"`` for one port.

        Raises:
            ConfigRefused: the text is neither form, or no range.
        """
        first, dash, last = text.partition("-")
        if not first.isdecimal() or not (last.isdecimal() if dash else True):
            raise ConfigRefused(
                f"--udp-ports must be like 50000-50100, from 1 to 65535 (got {text!r})"
            )
        return cls(int(first), int(last or first))


class UdpPorts:
    """Binds sockets in a range, or anywhere; a port that was freed is taken again last."""

    def __init__(self, range_: PortRange | None) -> None:
        self._range = range_
        count = 1 if range_ is None else range_.last - range_.first + 1
        # Not always from the first one: packets for a server that was killed may still come.
        self._next = random.randrange(count)  # noqa: S311 - spreads, keeps no secret
        self._count = count

    async def bind(self, address: str, make: Callable[[], asyncio.DatagramProtocol]) -> Any:
        """Return a protocol whose socket is bound to ``address``.

        Raises:
            ServerFull: all ports of the range are in use.
            OSError: there is no such address.
        """
        loop = asyncio.get_running_loop()
        for _ in range(self._count):
            port = 0 if self._range is None else self._range.first + self._next
            self._next = (self._next + 1) % self._count
            try:
                _, protocol = await loop.create_datagram_endpoint(make, local_addr=(address, port))
            except OSError as error:
                if self._range is None or error.errno != errno.EADDRINUSE:
                    raise
            else:
                return protocol
        raise ServerFull(f"all UDP ports of this server are in use (--udp-ports {self._range})")


async def gather(
    self: Connection,
    component: int,
    addresses: list[str],
    timeout: int = 5,  # noqa: ASYNC109 - as aioice calls it
    *,
    ports: UdpPorts,
    relay: Gather,
) -> list[Candidate]:
    """Gather candidates in the place of ``Connection.get_component_candidates``.

    Args:
        self: the connection.
        component: its component.
        addresses: of this machine.
        timeout: for a TURN server, in seconds.
        ports: where sockets are bound.
        relay: aioice's own, which asks the TURN server, if there is one.

    Raises:
        ServerFull: all ports are in use.
    """
    protocols, full = [], None
    for address in addresses:
        try:
            protocol = await ports.bind(address, lambda: aioice.ice.StunProtocol(self))
        except ServerFull as error:
            full = error
            continue
        except OSError as error:
            logger.info("cannot bind to %s: %s", address, error)
            continue
        _enlarge(protocol.transport.get_extra_info("socket"))
        protocol.local_candidate = _to_candidate(protocol, component)
        protocols.append(protocol)
    self._protocols += protocols
    if full is not None:
        logger.warning("%s", full)
        if not protocols:
            raise full
    candidates = [protocol.local_candidate for protocol in protocols]
    reflexive, relayed = await asyncio.gather(
        _ask_stun(protocols, self.stun_server), relay(self, component, [], timeout)
    )
    return [*candidates, *reflexive, *relayed]


async def _ask_stun(protocols: list[Any], server: tuple[str, int] | None) -> list[Candidate]:
    """Return what a STUN server sees of our sockets, as far as it answers in time (IPv4)."""
    if server is None:
        return []

    async def ask(protocol: Any) -> Candidate:
        async with asyncio.timeout(STUN_TIMEOUT_S):
            candidate, _ = await aioice.ice.server_reflexive_candidate(protocol, server)
        return candidate

    asked = [
        ask(protocol)
        for protocol in protocols
        if ipaddress.ip_address(protocol.local_candidate.host).version == 4
    ]
    # Whatever keeps it from answering, the other candidates are good.
    answers = await asyncio.gather(*asked, return_exceptions=True)
    if any(isinstance(answer, TimeoutError) for answer in answers):
        logger.warning("the STUN server %s:%d did not answer in time", *server)
    return [answer for answer in answers if isinstance(answer, Candidate)]


def _to_candidate(protocol: Any, component: int) -> Candidate:
    host, port = protocol.transport.get_extra_info("sockname")[:2]
    return Candidate(
        foundation=candidate_foundation("host", "udp", host),
        component=component,
        transport="udp",
        priority=candidate_priority(component, "host"),
        host=host,
        port=port,
        type="host",
    )


def _enlarge(sock: Any) -> None:
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, turn.UDP_SOCKET_BUFFER_SIZE)
