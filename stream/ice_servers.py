"""STUN and TURN servers that peers are told of, and credentials that last one evening."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from stream.errors import ConfigRefused

CREDENTIAL_S = 12 * 3600
"""How long credentials are good for. A relay that is in use is asked for again every ten minutes
with those that it began with, so they have to outlast the longest session."""

_ICE_SERVER = re.compile(r"(stuns?|turns?):[^\s<>\"]+")


@dataclass(frozen=True, slots=True)
class IceServer:
    """A STUN or TURN server; checked when it is made."""

    url: str
    """Such as ``stun:stun.example.org`` (RFC 7064) or ``turn:...`` (RFC 7065)."""
    username: str = ""
    credential: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not _ICE_SERVER.fullmatch(self.url):
            raise ConfigRefused(
                f'--ice-server must be like "stun:stun.example.org" (got {self.url!r})'
            )

    @property
    def wants_secret(self) -> bool:
        """Whether its credentials are made from the shared secret."""
        return self.url.startswith("turn") and not self.username


def check_secret(servers: Sequence[IceServer], secret: str) -> None:
    """Check that each TURN server has credentials, and that the secret is for one of them.

    Raises:
        ConfigRefused: browsers would refuse such a server.
    """
    wanting = [server.url for server in servers if server.wants_secret]
    if wanting and not secret:
        raise ConfigRefused(
            f"--ice-server {wanting[0]} needs credentials: {wanting[0]},USER,PASSWORD, or "
            "--turn-secret"
        )
    if secret and not wanting:
        raise ConfigRefused("--turn-secret belongs to an --ice-server turn:HOST without a user")


def lend(
    servers: Sequence[IceServer], secret: str, name: str, now_s: float | None = None
) -> tuple[IceServer, ...]:
    """Return the servers with credentials for one session.

    Those of a shared secret are what coturn calls ``use-auth-secret``
    (draft-uberti-behave-turn-rest-00): the user name says until when they are good.

    Args:
        servers: as they were configured.
        secret: what the TURN servers share with this one.
        name: whom they are for, as the TURN server's log shows it.
        now_s: seconds since 1970; None: now.
    """
    expiry_s = int((time.time() if now_s is None else now_s) + CREDENTIAL_S)
    username = f"{expiry_s}:{name}"
    digest = hmac.digest(secret.encode(), username.encode(), hashlib.sha1)
    credential = base64.b64encode(digest).decode()
    return tuple(
        replace(server, username=username, credential=credential) if server.wants_secret else server
        for server in servers
    )


def to_browser(servers: Sequence[IceServer]) -> list[dict[str, str]]:
    """Return what an ``RTCPeerConnection`` takes as its ``iceServers`` (W3C WebRTC, 4.2.4)."""
    return [
        {"urls": server.url}
        | (
            {"username": server.username, "credential": server.credential}
            if server.username
            else {}
        )
        for server in servers
    ]
