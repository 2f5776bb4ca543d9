"""The flags of ``run.py serve`` that say who gets in and by which way, and their secrets."""

from __future__ import annotations

import argparse
import ipaddress
import os
from pathlib import Path
from typing import Any

from stream.addresses import Address
from stream.errors import ConfigRefused

TURN_VARIABLE = "SDXS_TURN_SECRET"
TOKEN_VARIABLE = "SDXS_TOKEN"  # noqa: S105 - a name, not a secret
ICE_VARIABLE = "SDXS_ICE_SERVERS"


def add_access(parser: argparse.ArgumentParser) -> None:
    """The flags that say who gets in."""
    group = parser.add_argument_group(
        "access",
        "@FILE in place of a secret reads it from that file, so that it is not in the list of "
        "processes.",
    )
    group.add_argument(
        "--token",
        default="",
        help="what requests have to bring, or @FILE; empty: the environment's "
        f"{TOKEN_VARIABLE}; without that either: nothing",
    )
    group.add_argument(
        "--tokens",
        type=Path,
        metavar="FILE",
        help="more tokens, each with a name and a quota, in TOML (docs/deployment.md)",
    )
    group.add_argument("--cert", type=Path, help="the server's certificate and its chain, PEM")
    group.add_argument("--key", type=Path, help="its private key, PEM")
    group.add_argument(
        "--tls",
        choices=("off", "self-signed", "proxy"),
        default="off",
        help="self-signed: a certificate of our own making, for a home network, kept among this "
        "user's files; proxy: a proxy in front of the server speaks HTTPS",
    )
    group.add_argument(
        "--insecure",
        action="store_true",
        help="listen where others get at it, without a token or TLS",
    )


def add_media(parser: argparse.ArgumentParser) -> None:
    """The flags that say by which way media come."""
    group = parser.add_argument_group("media's way")
    group.add_argument(
        "--ice-server",
        action="append",
        default=[],
        help="for the page and for standard clients: stun:HOST, turn:HOST,USER,PASSWORD, "
        "turn:HOST with --turn-secret, or @FILE with one of them a line; may be given several "
        f"times. Empty: the environment's {ICE_VARIABLE}, separated by blanks",
    )
    group.add_argument(
        "--turn-secret",
        default="",
        help="what the TURN servers without a user share with this one (coturn's "
        f"static-auth-secret), or @FILE; empty: the environment's {TURN_VARIABLE}",
    )
    group.add_argument(
        "--public-ip",
        default="",
        metavar="ADDRESS",
        help="what strangers reach this machine by, behind a NAT that hands every port on",
    )
    group.add_argument(
        "--udp-ports",
        default="",
        metavar="FIRST-LAST",
        help="where media come in, one port a session or viewer: 50000-50100; empty: any",
    )


def to_access(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the flags of :func:`add_access` say, by the fields of a ServerConfig.

    Raises:
        ConfigRefused: a file cannot be read, or what it says cannot be.
    """
    from stream.tls import Tls
    from stream.tokens import read_tokens

    return {
        "tls": Tls(options.tls, options.cert, options.key),
        "is_insecure": options.insecure,
        "token": read_secret("token", options.token, TOKEN_VARIABLE),
        "tokens": () if options.tokens is None else read_tokens(options.tokens),
    }


def to_media(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the flags of :func:`add_media` say, by the fields of a ServerConfig.

    Raises:
        ConfigRefused: a file cannot be read, or what it says cannot be.
    """
    from stream.gathering import PortRange
    from stream.ice_servers import IceServer

    return {
        "ice_servers": tuple(
            IceServer(*line.split(",", 2)) for line in _read_ice_lines(options.ice_server)
        ),
        "turn_secret": read_secret("turn-secret", options.turn_secret, TURN_VARIABLE),
        "public_ip": _read_public_ip(options.public_ip),
        "udp_ports": PortRange.parse(options.udp_ports) if options.udp_ports else None,
    }


def _read_public_ip(text: str) -> Address | None:
    if not text:
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ConfigRefused(
            f"--public-ip must be an address like 203.0.113.7 (got {text!r})"
        ) from None
    if address.is_unspecified or address.is_loopback or address.is_multicast:
        raise ConfigRefused(f"--public-ip must be what others reach this machine by (got {text})")
    return address


def read_secret(flag: str, text: str, variable: str) -> str:
    """Return a secret: the flag's own text, what ``@FILE`` holds, or an environment variable's.

    Raises:
        ConfigRefused: the file cannot be read, or is empty.
    """
    if not text:
        return os.environ.get(variable, "").strip()
    if not text.startswith("@"):
        return text
    secret = _read_file(flag, text)
    if not secret:
        raise ConfigRefused(f"--{flag}: the file {text[1:]} is empty; it holds the secret alone")
    return secret


def _read_ice_lines(given: list[str]) -> list[str]:
    if not given:
        return os.environ.get(ICE_VARIABLE, "").split()
    lines: list[str] = []
    for text in given:
        lines += _read_file("ice-server", text).split() if text.startswith("@") else [text]
    return lines


def _read_file(flag: str, text: str) -> str:
    path = Path(text[1:])
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigRefused(f"--{flag}: {path} cannot be read: {reason}") from None
