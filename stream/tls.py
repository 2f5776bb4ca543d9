"""TLS: whose certificate the server shows, and plain http led to https on the same port."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aiohttp import web

from stream.errors import ConfigRefused

logger = logging.getLogger(__name__)

TlsMode = Literal["off", "self-signed", "proxy"]

FIRST_BYTE_S = 5.0
"""How long a connection may say nothing; it holds a socket meanwhile."""
HANDSHAKE_S = 10.0
MAX_SILENT = 256
"""Connections that have said nothing yet; of more, the oldest makes way."""
MAX_HEAD_BYTES = 8192

# RFC 8446, section 5.1: every handshake begins with it, and no request of HTTP does.
_HANDSHAKE = b"\x16"
_HEAD = re.compile(
    rb"(?:GET|HEAD) (/[!-~]*) HTTP/1\.[01]\r\n(?:[!-~]+:[ -~\t]*\r\n)*?"
    rb"Host:[ \t]*([A-Za-z0-9.:\[\]-]+)[ \t]*\r\n",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Tls:
    """Where the certificate comes from; checked when it is made."""

    mode: TlsMode = "off"
    """``"self-signed"``: one of our own making; ``"proxy"``: a proxy in front has one."""
    cert: Path | None = None
    """The server's certificate and those between it and a root (PEM)."""
    key: Path | None = None
    """Its private key (PEM)."""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ConfigRefused("--cert and --key belong together; give both")
        if self.cert is not None and self.mode != "off":
            raise ConfigRefused(f"--tls {self.mode} has no use for --cert; leave one of them out")

    @property
    def is_served(self) -> bool:
        """Whether this server itself speaks TLS."""
        return self.cert is not None or self.mode == "self-signed"

    @property
    def is_given(self) -> bool:
        """Whether browsers come by https, whoever speaks it."""
        return self.is_served or self.mode == "proxy"


def load_context(cert: Path, key: Path, flags: str = "--cert and --key") -> ssl.SSLContext:
    """Return what speaks TLS with a certificate.

    Args:
        cert: PEM.
        key: PEM, without a password.
        flags: what to name in the error.

    Raises:
        ConfigRefused: they cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # Asked for a password, OpenSSL would wait at the terminal.
        context.load_cert_chain(cert, key, password=lambda: b"")
    except ssl.SSLError as error:
        reason = (error.reason or "not PEM").replace("_", " ").lower()
        raise ConfigRefused(f"{flags}: {cert} and {key} cannot be used: {reason}") from None
    except OSError as error:
        raise ConfigRefused(f"{flags}: {cert} or {key} cannot be read: {error.strerror}") from None
    # HTTP/2 is not spoken here.
    context.set_alpn_protocols(["http/1.1"])
    return context


class TlsSite(web.BaseSite):
    """Serves https; who comes by http is sent there, on the same port.

    Whoever types the address without a scheme comes by http first, and would see an empty page.
    """

    def __init__(self, runner: web.AppRunner, sock: socket.socket, context: ssl.SSLContext) -> None:
        """Make a site that does not accept yet.

        Args:
            runner: answers requests; set up.
            sock: listens; it stays the caller's.
            context: see :func:`load_context`.
        """
        super().__init__(runner, ssl_context=context)
        self._sock = sock
        self._context = context
        self._accepting: asyncio.Task[None] | None = None
        # In the order in which they came.
        self._beginning: dict[asyncio.Task[None], None] = {}

    @property
    def name(self) -> str:
        """The address."""
        host, port = self._sock.getsockname()[:2]
        return f"https://{host}:{port}"

    async def start(self) -> None:
        """Begin to accept."""
        await super().start()
        self._sock.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(), name="accept")

    async def stop(self) -> None:
        """Accept no more; connections that have begun are the runner's to end."""
        tasks = [*self._beginning, *([self._accepting] if self._accepting else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await super().stop()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._sock)
            except OSError as error:  # such as too many open files
                logger.warning("cannot accept a connection: %s", error.strerror)
                await asyncio.sleep(1)
                continue
            task = asyncio.create_task(self._begin(connection), name="first byte")
            self._beginning[task] = None
            task.add_done_callback(self._beginning.pop)
            if len(self._beginning) > MAX_SILENT:
                next(iter(self._beginning)).cancel()

    async def _begin(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        is_taken = False
        try:
            connection.setblocking(False)
            async with asyncio.timeout(FIRST_BYTE_S):
                first = await _peek(connection)
            if first == _HANDSHAKE:
                is_taken = True
                answer = self._runner.server
                assert answer is not None, "the runner is set up"
                await loop.connect_accepted_socket(
                    answer,
                    connection,
                    ssl=self._context,
                    ssl_handshake_timeout=HANDSHAKE_S,
                )
            elif first:
                is_taken = True
                await loop.connect_accepted_socket(Redirect, connection)
        except (OSError, TimeoutError) as error:
            # A browser that does not know the certificate ends the handshake, too.
            logger.debug("a connection ended before its first request: %s", error)
        finally:
            if not is_taken:
                connection.close()


class Redirect(asyncio.Protocol):
    """Answers one request of plain HTTP: the same is to be had by https."""

    def __init__(self) -> None:
        self._head = b""
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give it a time to ask."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(FIRST_BYTE_S, transport.abort)

    def connection_lost(self, _: Exception | None) -> None:
        """Forget the deadline."""
        if self._deadline is not None:
            self._deadline.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer when the head is whole."""
        assert self._transport is not None, "connection_made comes first"
        self._head += data
        if b"\r\n\r\n" in self._head or len(self._head) > MAX_HEAD_BYTES:
            self._transport.write(redirect(self._head))
            self._transport.close()


def redirect(head: bytes) -> bytes:
    """Return the answer to a request's head: 307, or 400 for what no browser asks by itself.

    Not 308: browsers would remember it when the server has no certificate any more.
    """
    match = _HEAD.match(head)
    end = b"Content-Length: 0\r\nConnection: close\r\n\r\n"
    if match is None:
        return b"HTTP/1.1 400 This port speaks HTTPS\r\n" + end
    location = b"https://" + match[2] + match[1]
    return b"HTTP/1.1 307 Temporary Redirect\r\nLocation: " + location + b"\r\n" + end


async def _peek(connection: socket.socket) -> bytes:
    """Return the first byte that comes, and leave it there; nothing if there is none."""
    loop = asyncio.get_running_loop()
    there = asyncio.Event()
    loop.add_reader(connection, there.set)
    try:
        await there.wait()
    finally:
        loop.remove_reader(connection)
    return connection.recv(1, socket.MSG_PEEK)
