"""The flags of ``run.py serve`` that say who gets in, and their secrets."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from stream.errors import ConfigRefused

TOKEN_VARIABLE = "SDXS_TOKEN"  # noqa: S105 - a name, not a secret
ICE_VARIABLE = "SDXS_ICE_SERVERS"


def add_access(parser: argparse.ArgumentParser) -> None:
    """Add them. A secret may also come from a file or from the environment."""
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
    group.add_argument(
        "--ice-server",
        action="append",
        default=[],
        help="for the page and for standard clients: stun:HOST, turn:HOST,USER,PASSWORD, or "
        "@FILE with one of them a line; may be given several times. Empty: the environment's "
        f"{ICE_VARIABLE}, separated by blanks",
    )


def to_access(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the flags of :func:`add_access` say, by the fields of a ServerConfig.

    Raises:
        ConfigRefused: a file cannot be read, or what it says cannot be.
    """
    from stream.config import IceServer
    from stream.tokens import read_tokens

    return {
        "token": read_secret("token", options.token, TOKEN_VARIABLE),
        "tokens": () if options.tokens is None else read_tokens(options.tokens),
        "ice_servers": tuple(
            IceServer(*line.split(",", 2)) for line in _read_ice_lines(options.ice_server)
        ),
    }


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
