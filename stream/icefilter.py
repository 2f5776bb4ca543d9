"""Datagrams only from addresses that have proved themselves, and not too many at a time.

aioice puts whatever arrives at the port, from anyone, into a queue without a bound, and
aiortc gives it to OpenSSL and libsrtp: a flood fills the memory, and a forged handshake can
end a session before it has begun. An address proves itself by a connectivity check with
the session's password, answered or asked (RFC 8445, section 7).
"""

from __future__ import annotations

import struct
import time
from typing import Any

from aioice import Connection
from aioice.ice import CandidatePair, StunProtocol

# A quarter of a second at 2000 packets a second; the socket's own buffer lies before it.
MAX_QUEUED_DATAGRAMS = 512
# A turn of a busy loop takes 10 ms, in which a camera of 4 Mb/s sends four. Of media that are
# decrypted in one go, this many take some 10 ms themselves.
MAX_READ_AT_ONCE = 64
MAX_DATAGRAM_BYTES = 65_536
# As many as a peer may name itself (stream.signaling): aioice keeps a pair for each, looks through
# all of them for the next, and asks each of them back.
MAX_ADDRESSES = 128
# First bytes (RFC 7983, section 7).
_STUN = range(4)
_DTLS = range(20, 64)
_RTP = range(128, 192)


class FilteredConnection(Connection):  # type: ignore[misc]  # aioice is seen as untyped
    """An ICE connection that knows which addresses have proved themselves."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.validated_addresses: set[tuple[str, int]] = set()
        self.refused_datagrams = 0
        self.heard_s: float | None = None
        """``time.perf_counter()`` of the last datagram from a validated address, of any kind."""

    def check_incoming(self, message: Any, addr: tuple[str, int], protocol: Any) -> None:
        """Handle a check whose password was right; drop it if its address is one too many.

        The peer knows the password, and may have sixty thousand ports. And one without a priority
        (RFC 8445, section 7.1.1) would be a traceback in the log, each time.
        """
        is_known = addr in self.validated_addresses
        is_full = len(self.validated_addresses) >= MAX_ADDRESSES
        if "PRIORITY" not in message.attributes or (is_full and not is_known):
            self.refused_datagrams += 1
            return
        self.validated_addresses.add(addr)
        super().check_incoming(message, addr, protocol)

    def check_state(self, pair: Any, state: Any) -> None:
        """Change the state of a pair; success means that our check was answered."""
        if state is CandidatePair.State.SUCCEEDED:
            self.validated_addresses.add(pair.remote_addr)
        super().check_state(pair, state)

    def data_received(self, data: bytes, component: int) -> None:
        """Queue a datagram; drop it if it cannot be media, or if nobody takes them."""
        is_media = data[:1] and (data[0] in _DTLS or data[0] in _RTP)
        if not is_media or self._queue.qsize() >= MAX_QUEUED_DATAGRAMS:
            self.refused_datagrams += 1
            return
        super().data_received(data, component)


class FilteredProtocol(StunProtocol):  # type: ignore[misc]  # aioice is seen as untyped
    """A socket, direct or relayed, that passes on what its connection may see."""

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Take a datagram, and what else waits in the socket.

        asyncio reads one in each turn of its loop. When the loop is busy, a flood of strangers'
        fills the socket's buffer, and those of the peer are lost.
        """
        self.take_datagram(data, addr)
        sock: Any = getattr(self.transport, "_sock", None)  # a relayed one has none
        for _ in range(0 if sock is None else MAX_READ_AT_ONCE - 1):
            try:
                data, addr = sock.recvfrom(MAX_DATAGRAM_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self.error_received(error)
                return
            self.take_datagram(data, addr)

    def take_datagram(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Pass on one datagram or drop it; STUN proves itself by its password."""
        address = (addr[0], addr[1])
        if address in self.receiver.validated_addresses:
            self.receiver.heard_s = time.perf_counter()
        if data[:1] and data[0] in _STUN:
            self._take_stun(data, address)
        elif address in self.receiver.validated_addresses:
            self.receiver.data_received(data, self.local_candidate.component)
        else:
            self.receiver.refused_datagrams += 1

    def _take_stun(self, data: bytes, address: tuple[str, int]) -> None:
        """Pass on what reads as STUN.

        aioice expects a ``ValueError`` of what does not; a number cut short is another error, and
        would be a traceback in the log for each datagram of any stranger.
        """
        try:
            super().datagram_received(data, address)
        except struct.error:
            self.receiver.refused_datagrams += 1
