import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aioice.ice
import pytest
from rtp_peers import connect

from stream import rtp
from stream.corrections import Corrections
from stream.icefilter import (
    MAX_ADDRESSES,
    MAX_QUEUED_DATAGRAMS,
    MAX_READ_AT_ONCE,
    FilteredConnection,
)

ALL = Corrections()
STRANGER = ("192.0.2.7", 4000)
MEDIA = b"\x80" + bytes(40)
HANDSHAKE = b"\x16\xfe\xfd" + bytes(40)


def connection_of(receiver: Any) -> Any:
    return receiver.transport.transport._connection


def datagram_socket(address: tuple[Any, ...]) -> socket.socket:
    """Return a socket that can send to an address of either kind."""
    return socket.socket(
        socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_DGRAM
    )


def make_check(connection: Any, password: str, *, has_priority: bool = True) -> bytes:
    """Return a connectivity check (RFC 8445, section 7.2) as the peer would send it."""
    request = aioice.stun.Message(
        message_method=aioice.stun.Method.BINDING, message_class=aioice.stun.Class.REQUEST
    )
    request.attributes["USERNAME"] = f"{connection.local_username}:{connection.remote_username}"
    if has_priority:
        request.attributes["PRIORITY"] = 1
    request.add_message_integrity(password.encode())
    return bytes(request)


@asynccontextmanager
async def reached(corrections: Corrections = ALL) -> AsyncIterator[tuple[Any, Any, Any]]:
    """Connect a pair, and yield it, its receiver's connection, and what datagrams come to there."""
    with rtp.installed(corrections):
        async with connect() as pair:
            await pair.receive(1)
            connection = connection_of(pair.receiver)
            (nominated,) = connection._nominated.values()
            yield pair, connection, nominated.protocol


async def test_only_the_peer_that_proved_itself_is_heard() -> None:
    """Media and handshakes from another address are counted and dropped."""
    with rtp.installed():
        async with connect() as pair:
            await pair.receive(2)
            connection = connection_of(pair.receiver)
            (nominated,) = connection._nominated.values()
            protocol, peer = nominated.protocol, nominated.remote_addr
            assert isinstance(connection, FilteredConnection)
            assert peer in connection.validated_addresses
            before = connection.refused_datagrams
            for data in (MEDIA, HANDSHAKE, b"\xff" * 9, b"\x00\x01junk", b""):
                protocol.take_datagram(data, STRANGER)
            protocol.take_datagram(MEDIA, (peer[0], peer[1] ^ 1))
            assert connection.refused_datagrams == before + 6
            assert connection._queue.empty()
            heard_s = connection.heard_s
            assert heard_s is not None
            protocol.take_datagram(MEDIA, STRANGER)
            assert connection.heard_s == heard_s
            protocol.take_datagram(MEDIA, peer)
            assert connection.heard_s > heard_s
            assert connection._queue.qsize() == 1
            await pair.receive(4)


async def test_a_wrong_password_proves_nothing() -> None:
    """A connectivity check that fails its check leaves its sender a stranger."""
    async with reached() as (_, connection, protocol):
        protocol.datagram_received(make_check(connection, "guess"), STRANGER)
        assert STRANGER not in connection.validated_addresses


async def test_a_check_without_a_priority_is_dropped() -> None:
    """A check that aioice would fail on, with the right password, is one more refused datagram."""
    async with reached() as (_, connection, protocol):
        before = connection.refused_datagrams
        check = make_check(connection, connection.local_password, has_priority=False)
        protocol.take_datagram(check, STRANGER)
        assert STRANGER not in connection.validated_addresses
        assert connection.refused_datagrams == before + 1


@pytest.mark.parametrize("attribute", [0x0003, 0x000C, 0x0024, 0x8028, 0x8029, 0x802A])
async def test_a_number_cut_short_is_dropped(attribute: int) -> None:
    """STUN of a stranger whose attribute is too short is one more refused datagram."""
    async with reached() as (_, connection, protocol):
        before = connection.refused_datagrams
        head = struct.pack("!HHI12s", 0x0001, 4, 0x2112A442, bytes(12))
        protocol.take_datagram(head + struct.pack("!HH", attribute, 0), STRANGER)
        assert connection.refused_datagrams == before + 1


async def test_a_peer_has_a_bounded_number_of_addresses() -> None:
    """Checks with the right password from ever other ports cost neither memory nor answers."""
    async with reached() as (pair, connection, protocol):
        check = make_check(connection, connection.local_password)
        for port in range(1024, 1024 + 2 * MAX_ADDRESSES):
            protocol.take_datagram(check, (STRANGER[0], port))
        assert (STRANGER[0], 1024) in connection.validated_addresses
        assert len(connection.validated_addresses) == MAX_ADDRESSES
        assert len(connection.remote_candidates) <= 2 * MAX_ADDRESSES
        assert connection.refused_datagrams > MAX_ADDRESSES
        await pair.receive(3)


async def test_a_flood_has_a_bound() -> None:
    """Nobody, not even the peer, fills the memory while the loop is busy."""
    connection = FilteredConnection(ice_controlling=False)
    for _ in range(3 * MAX_QUEUED_DATAGRAMS):
        connection.data_received(MEDIA, 1)
    assert connection._queue.qsize() == MAX_QUEUED_DATAGRAMS
    assert connection.refused_datagrams == 2 * MAX_QUEUED_DATAGRAMS
    await connection.close()


async def test_what_waits_in_the_socket_is_read_at_once() -> None:
    """A flood costs one turn of the loop, not one for each datagram; more than 64 wait their turn.

    Otherwise it stands in the socket's buffer, and what the peer sends is lost.
    """
    async with reached() as (pair, _, protocol):
        address = protocol.transport.get_extra_info("sockname")
        read: list[int] = []
        take, datagram_received = protocol.take_datagram, protocol.datagram_received
        is_enough = asyncio.Event()

        def note(data: bytes, addr: tuple[Any, ...]) -> None:
            read[-1] += 1
            take(data, addr)

        def note_turn(data: bytes, addr: tuple[Any, ...]) -> None:
            read.append(0)
            datagram_received(data, addr)
            if sum(read) >= 100:
                is_enough.set()

        protocol.take_datagram, protocol.datagram_received = note, note_turn
        with datagram_socket(address) as stranger:
            for _ in range(100):
                stranger.sendto(HANDSHAKE, address[:2])
        await asyncio.wait_for(is_enough.wait(), 5)
        assert max(read) == MAX_READ_AT_ONCE
        await pair.receive(3)


@pytest.mark.parametrize("is_on", [True, False])
async def test_over_the_wire_and_switched_off(is_on: bool) -> None:
    """A real socket's datagram is dropped; without the correction it reaches aiortc."""
    corrections = Corrections() if is_on else Corrections().without("address-filter")
    async with reached(corrections) as (_, connection, protocol):
        address = protocol.transport.get_extra_info("sockname")
        heard = asyncio.Event()
        received, datagram_received = [], protocol.datagram_received
        connection.data_received = lambda data, component: received.append(data)

        def note(data: bytes, addr: tuple[Any, ...]) -> None:
            datagram_received(data, addr)
            if data == HANDSHAKE:
                heard.set()

        protocol.datagram_received = note
        with datagram_socket(address) as stranger:
            stranger.sendto(HANDSHAKE, address[:2])
            await asyncio.wait_for(heard.wait(), 5)
        assert (HANDSHAKE in received) != is_on
