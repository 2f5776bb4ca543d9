"""Where sockets are bound: in the range, each port again, and what happens when none is left."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import aioice
import aioice.ice
import pytest
from aioice import Connection
from engines import ColourEngine
from offers import obs
from peers import flat, serving

from stream import gathering, rtp
from stream.addresses import find_default_address, list_addresses
from stream.config import ServerConfig
from stream.corrections import Corrections
from stream.errors import ConfigRefused, ServerFull
from stream.gathering import PortRange
from stream.ice_servers import IceServer
from stream.public_address import publish

SDP = {"Content-Type": "application/sdp"}
COLOUR = (200, 120, 40)


def find_free_range(count: int) -> PortRange:
    """Return ports that nobody has now, on any address."""
    for first in range(42_000, 60_000, count):
        with contextmanager(take)(range(first, first + count)) as taken:
            if taken:
                return PortRange(first, first + count - 1)
    raise AssertionError("no free ports")


def take(ports: range) -> Iterator[bool]:
    sockets = []
    try:
        for port in ports:
            sockets.append(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
            sockets[-1].bind(("::", port))
        yield True
    except OSError:
        yield False
    finally:
        for each in sockets:
            each.close()


@asynccontextmanager
async def gathered(**options: object) -> AsyncIterator[Connection]:
    connection = aioice.ice.Connection(ice_controlling=False, **options)
    try:
        await connection.gather_candidates()
        yield connection
    finally:
        await connection.close()


def ports_of(connection: Connection) -> set[int]:
    return {candidate.port for candidate in connection.local_candidates}


def ports_in(answer: str) -> set[int]:
    return {int(port) for port in re.findall(r"a=candidate:\S+ \d udp \d+ \S+ (\d+)", answer)}


@pytest.mark.parametrize(
    ("text", "ports"),
    [("50000-50100", (50_000, 50_100)), ("7", (7, 7)), ("1-65535", (1, 65_535))],
)
def test_range_is_read(text: str, ports: tuple[int, int]) -> None:
    """A range has two ends, or is one port."""
    assert PortRange.parse(text) == PortRange(*ports)


@pytest.mark.parametrize("text", ["0-9", "9-8", "-5", "5-", "1-65536", "a-b", "1-2-3", "1:2", "-"])
def test_impossible_range_is_refused(text: str) -> None:
    """What is no range is named."""
    with pytest.raises(ConfigRefused, match="--udp-ports must be like 50000-50100"):
        PortRange.parse(text)


async def test_sockets_are_in_the_range_and_ports_are_used_again() -> None:
    """Over a hundred connections use the eight ports there are, each again only after the rest."""
    range_ = find_free_range(8)
    wanted = set(range(range_.first, range_.last + 1))
    with rtp.installed(udp_ports=range_):
        used = []
        for _ in range(100):
            async with gathered(use_ipv6=False) as connection:
                assert ports_of(connection) <= wanted
                used.append(min(ports_of(connection)))
        assert set(used) == wanted
        assert all(a != b for a, b in itertools.pairwise(used))


async def test_range_is_in_force_again_after_a_block() -> None:
    """What was in force before a block is in force after it, the range of ports too."""
    range_ = find_free_range(8)
    with rtp.installed(udp_ports=range_):
        with rtp.installed():
            pass
        async with gathered(use_ipv6=False) as connection:
            assert ports_of(connection) <= set(range(range_.first, range_.last + 1))


async def test_without_the_correction_ports_are_anywhere() -> None:
    """Stock aioice binds any port; so does ours without a range."""
    range_ = find_free_range(2)
    for corrections, udp_ports in (
        (Corrections().without("gathering"), range_),
        (Corrections(), None),
    ):
        with rtp.installed(corrections, udp_ports=udp_ports):
            async with gathered() as connection:
                assert ports_of(connection).isdisjoint((range_.first, range_.last))


async def test_others_ports_are_passed_over() -> None:
    """A port that another program has is skipped; when no port is left, that is said."""
    range_ = find_free_range(3)
    with rtp.installed(udp_ports=range_), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", range_.first + 1))
        async with gathered(use_ipv6=False) as first, gathered(use_ipv6=False) as second:
            assert ports_of(first) | ports_of(second) == {range_.first, range_.last}
            third = aioice.ice.Connection(ice_controlling=False, use_ipv6=False)
            with pytest.raises(ServerFull, match=f"UDP ports .* in use .--udp-ports {range_}"):
                await third.gather_candidates()
            await third.close()
        async with gathered(use_ipv6=False) as again:
            assert ports_of(again) <= {range_.first, range_.last}


async def test_full_range_is_503_until_a_session_ends() -> None:
    """With no port left a session is refused with a sentence, and taken when another has ended."""
    range_ = find_free_range(1)
    config = ServerConfig(udp_ports=range_)
    with rtp.installed(udp_ports=range_):
        async with serving(ColourEngine, config) as server:
            url = f"{server.base}/whip"
            async with server.http.post(url, data=obs(), headers=SDP) as response:
                assert response.status == 201
                assert ports_in(await response.text()) == {range_.first}
                location = response.headers["Location"]
            async with server.http.post(url, data=obs(), headers=SDP) as response:
                assert (response.status, response.headers["Retry-After"]) == (503, "5")
                detail = (await response.json(content_type=None))["detail"]
            assert detail == f"all UDP ports of this server are in use (--udp-ports {range_})"
            assert len(server.sessions) == 1
            async with server.http.delete(server.base + location) as response:
                assert response.status == 200
            async with server.http.post(url, data=obs(), headers=SDP) as response:
                assert response.status == 201


@pytest.fixture
async def silent_server() -> AsyncIterator[tuple[str, int]]:
    """A STUN server that hears and says nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 0))
        yield "127.0.0.1", sock.getsockname()[1]


async def test_silent_stun_server_holds_up_no_answer(
    silent_server: tuple[str, int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Host candidates come without the five seconds that aioice waits, and the log says why."""
    monkeypatch.setattr(gathering, "STUN_TIMEOUT_S", 0.1)
    with rtp.installed():
        start_s = time.perf_counter()
        async with gathered(stun_server=silent_server) as connection:
            assert time.perf_counter() - start_s < 4
            assert {candidate.type for candidate in connection.local_candidates} == {"host"}
    assert f"the STUN server 127.0.0.1:{silent_server[1]} did not answer" in caplog.text


class StunServer(asyncio.DatagramProtocol):
    """Answers each request with an address of its own invention."""

    SEEN = ("203.0.113.9", 4711)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        request = aioice.stun.parse_message(data)
        response = aioice.stun.Message(
            message_method=request.message_method,
            message_class=aioice.stun.Class.RESPONSE,
            transaction_id=request.transaction_id,
        )
        response.attributes["XOR-MAPPED-ADDRESS"] = self.SEEN
        self.transport.sendto(bytes(response), addr)  # type: ignore[attr-defined]


async def test_server_learns_its_public_address() -> None:
    """A server that others reach asks the STUN server, and its answer has what that has seen."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        StunServer, local_addr=("127.0.0.1", 0)
    )
    port = transport.get_extra_info("sockname")[1]
    servers = (IceServer("turn:turn.example", "ann", "hush"), IceServer(f"stun:127.0.0.1:{port}"))
    seen = []
    for names, public_ip in (((), None), (("studio.example",), None), ((), "203.0.113.7")):
        config = ServerConfig(
            names=names,
            ice_servers=servers,
            public_ip=ipaddress.ip_address(public_ip) if public_ip else None,
        )
        with rtp.installed():
            async with (
                serving(ColourEngine, config) as server,
                server.http.post(f"{server.base}/whip", data=obs(), headers=SDP) as response,
            ):
                seen.append("203.0.113.9 4711 typ srflx" in await response.text())
    transport.close()
    assert seen == [False, True, False]


# The public address.

PUBLIC = ipaddress.ip_address("203.0.113.7")
SECTION = (
    "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\nm=video 5001 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 172.17.0.1\r\n"
    "{}a=ice-ufrag:x\r\n"
)
DOCKER = "a=candidate:a 1 udp 9 172.17.0.1 5001 typ host\r\n"
PRIVATE = "a=candidate:b 1 udp 9 10.0.0.5 5002 typ host\r\n"
INSIDE6 = "a=candidate:c 1 udp 9 fd00::5 5003 typ host\r\n"
OUTSIDE6 = "a=candidate:d 1 udp 9 2a00:1450:4001::5 5004 typ host\r\n"
AS_PUBLIC = "a=candidate:b 1 udp 9 203.0.113.7 5002 typ host\r\n"


@pytest.mark.parametrize(
    ("own", "candidates", "published", "port"),
    [
        ("10.0.0.5", (DOCKER, PRIVATE, INSIDE6, OUTSIDE6), (AS_PUBLIC, OUTSIDE6), 5002),
        (None, (PRIVATE,), (AS_PUBLIC,), 5002),
        ("10.0.0.9", (PRIVATE, INSIDE6), (AS_PUBLIC,), 5002),
        ("10.0.0.5", (DOCKER, AS_PUBLIC), (AS_PUBLIC,), 5002),
    ],
)
def test_candidates_carry_the_public_address(
    own: str | None, candidates: tuple[str, ...], published: tuple[str, ...], port: int
) -> None:
    """The NAT's own candidate is published, what strangers cannot reach is left out."""
    answer = publish(
        SECTION.format("".join(candidates)), PUBLIC, ipaddress.ip_address(own) if own else None
    )
    wanted = SECTION.format("".join(published)).replace("172.17.0.1", str(PUBLIC))
    assert answer == wanted.replace("video 5001", f"video {port}")


async def test_peer_connects_to_the_public_address() -> None:
    """Every candidate of the answer is the public one, and media come through it."""
    public = find_default_address() or next(each for each in list_addresses() if each.version == 4)
    config = ServerConfig(public_ip=public, is_public=True)
    with rtp.installed():
        async with serving(ColourEngine, config) as server:
            peer = await server.connect(flat(COLOUR))
            answer = peer.pc.remoteDescription.sdp
            addresses = re.findall(r"a=candidate:\S+ \d udp \d+ (\S+)", answer)
            assert set(addresses) == {str(public)}
            await peer.until_frames(3)


@pytest.mark.parametrize("is_public", [True, False])
async def test_public_server_asks_nobody_inside(
    is_public: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what is offered and trickled, ICE gets to see what leads outside; at home all of it."""
    # Nobody is really asked.
    monkeypatch.setattr(aioice.ice.StunProtocol, "send_stun", lambda *_: None)
    inside, outside = ("192.168.7.7", "10.7.7.7"), ("8.8.8.8", "9.9.9.9")
    line = "a=candidate:1 1 udp 1 {} 9 typ host\r\n"
    offered = obs().replace("a=mid:0", f"{line.format(inside[0])}{line.format(outside[0])}a=mid:0")
    trickled = f"a=mid:0\r\n{line.format(inside[1])}{line.format(outside[1])}"
    with rtp.installed():
        async with serving(ColourEngine, ServerConfig(is_public=is_public)) as server:
            url = f"{server.base}/whip"
            async with server.http.post(url, data=offered, headers=SDP) as response:
                assert response.status == 201, await response.text()
                location = response.headers["Location"]
            headers = {"Content-Type": "application/trickle-ice-sdpfrag"}
            async with server.http.patch(
                server.base + location, data=trickled, headers=headers
            ) as response:
                assert response.status == 204
            session = server.sessions.camera(location.rpartition("/")[2])
            transceiver = session._peer_connection.getTransceivers()[0]
            connection = transceiver.receiver.transport.transport._connection
            seen = {candidate.host for candidate in connection.remote_candidates}
    assert seen == set(outside if is_public else inside + outside)
