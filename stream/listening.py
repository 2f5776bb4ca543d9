"""Where the server listens, who can reach it there, and what it needs then."""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
import ssl
import sys
from collections.abc import Collection
from enum import Enum

from aiohttp import web

from stream.addresses import Address, is_inside, list_addresses
from stream.config import ServerConfig
from stream.errors import AddressRefused, ConfigRefused
from stream.self_signed import LOOPBACK, find_or_make, find_state_folder
from stream.tls import TlsSite, load_context
from stream.tokens import HOW_TO_MAKE, MIN_LENGTH

logger = logging.getLogger(__name__)


class Reach(Enum):
    """Who can reach the server."""

    MACHINE = "this machine"
    NETWORK = "its network"
    PUBLIC = "everybody"


def bind(config: ServerConfig) -> socket.socket:
    """Return a socket that listens where ``config`` says.

    Raises:
        AddressRefused: the port is in use, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server((config.host, config.port), family=family, backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            detail = f"port {config.port} is in use; choose another with --port"
        else:
            detail = f"cannot listen on {config.host} port {config.port}: {error.strerror}"
        raise AddressRefused(detail) from error


def list_listening(sock: socket.socket) -> tuple[Address, ...]:
    """Return the addresses at which a socket is reached by others; none for loopback."""
    # An IPv6 address may have a zone, which is this machine's business.
    bound = ipaddress.ip_address(sock.getsockname()[0].partition("%")[0])
    if bound.is_loopback:
        return ()
    if not bound.is_unspecified:
        return (bound,)
    return tuple(each for each in list_addresses() if each.version == bound.version)


def find_reach(addresses: Collection[Address], public_ip: Address | None) -> Reach:
    """Tell who can reach a server.

    Args:
        addresses: at which it listens, other than loopback.
        public_ip: what strangers reach it by, if that is not one of its own.
    """
    if public_ip is not None or not all(is_inside(address) for address in addresses):
        return Reach.PUBLIC
    return Reach.NETWORK if addresses else Reach.MACHINE


def check_reach(config: ServerConfig, addresses: Collection[Address]) -> Reach:
    """Check that who can reach the server is kept out, or that it is meant so.

    In one's own network either will do: a token keeps others out, and TLS, which browsers ask
    for before they lend a camera, is taken as a sign that it was thought of. In the open it takes
    both, since without TLS everybody on the way reads the token. On loopback a proxy on this
    machine is the only way in, so TLS is the proxy's matter.

    Args:
        config: what the server was told.
        addresses: at which it listens, other than loopback.

    Raises:
        ConfigRefused: it lacks something, and was not told ``--insecure``.
    """
    reach = find_reach(addresses, config.public_ip)
    has_tls = config.tls.is_given or not addresses
    tokens = config.all_tokens
    missing = []
    if reach is Reach.NETWORK and not (has_tls or tokens):
        missing.append(f"--token @FILE ({HOW_TO_MAKE}) or --tls self-signed")
    if reach is Reach.PUBLIC:
        if not tokens or any(len(token.value) < MIN_LENGTH for token in tokens):
            missing.append(
                f"--token @FILE with {MIN_LENGTH} characters or more ({HOW_TO_MAKE}), or --tokens"
            )
        if not has_tls:
            missing.append("--cert and --key, or --tls proxy behind a proxy that speaks HTTPS")
    if not missing:
        return reach
    where = config.host if reach is Reach.NETWORK else f"{config.host}, which strangers reach,"
    if not config.is_insecure:
        raise ConfigRefused(
            f"to listen on {where} needs {'; and '.join(missing)}; --insecure lets anybody in"
        )
    logger.warning("listening on %s lets anybody in, as --insecure says", where)
    return reach


def list_own_names() -> tuple[str, ...]:
    """Return the names by which this machine is known in its own network (RFC 6762)."""
    name = socket.gethostname().lower().removesuffix(".local")
    return (name, f"{name}.local") if name.isascii() and name else ()


def make_context(config: ServerConfig, addresses: Collection[Address]) -> ssl.SSLContext | None:
    """Return what speaks TLS; None: the server speaks none.

    Raises:
        ConfigRefused: the certificate cannot be used, or not be made.
    """
    if config.tls.cert is not None and config.tls.key is not None:
        return load_context(config.tls.cert, config.tls.key)
    if config.tls.mode != "self-signed":
        return None
    names = {"localhost", *list_own_names(), *config.names}
    public = () if config.public_ip is None else (config.public_ip,)
    path = find_or_make(find_state_folder(), names, {*LOOPBACK, *addresses, *public})
    return load_context(path, path, "--tls self-signed")


def make_site(
    runner: web.AppRunner, sock: socket.socket, context: ssl.SSLContext | None
) -> web.BaseSite:
    """Return what accepts connections; it is not started yet."""
    if context is None or sys.platform == "win32":  # whose loop cannot wait to peek
        return web.SockSite(runner, sock, ssl_context=context)
    return TlsSite(runner, sock, context)


def to_url(sock: socket.socket, scheme: str = "http") -> str:
    """Return the address of the page on this machine."""
    host, port = sock.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
