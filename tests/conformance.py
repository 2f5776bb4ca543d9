"""One request and what a standard says of its answer."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from peers import Serving

from stream.config import IceServer, ServerConfig

SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}
ORIGIN = "https://studio.example.org"
CONFIG = ServerConfig(
    origins=(ORIGIN,),
    ice_servers=(
        IceServer("stun:stun.example.org"),
        IceServer("turn:turn.example.org?transport=udp", "ann", 'a "b" \\c'),
    ),
)
ICE_SERVERS = (
    r'<stun:stun\.example\.org>; rel="ice-server", '
    r'<turn:turn\.example\.org\?transport=udp>; rel="ice-server"; username="ann"; '
    r'credential="a \\"b\\" \\\\c"; credential-type="password"'
)
"""What ``CONFIG`` has to look like in ``Link``."""


@dataclass(frozen=True)
class Case:
    """One request, and what the answer has to be."""

    requirement: str
    method: str
    path: str
    status: int
    body: str = ""
    request: dict[str, str] = field(default_factory=dict)
    answer: dict[str, str | None] = field(default_factory=dict)
    """Headers: a pattern, or None for one that must not be there."""
    says: tuple[str, ...] = ()
    """Patterns of whole lines that must be in the body."""
    lacks: tuple[str, ...] = ()
    """Patterns of whole lines that must not."""


async def ask(server: Serving, case: Case, location: str = "") -> str:
    """Send a case's request and check its answer; return its body."""
    url = server.base + case.path.format(location)
    data = case.body or None
    async with server.http.request(
        case.method,
        url,
        data=data,
        headers=case.request,
        skip_auto_headers=["Content-Type"],
        allow_redirects=False,
    ) as response:
        body = await response.text()
        assert response.status == case.status, body
        for name, pattern in case.answer.items():
            got = ", ".join(response.headers.getall(name, []))
            assert (pattern is None) == (name not in response.headers), (name, got)
            assert pattern is None or re.fullmatch(pattern, got), (name, got)
        lines = body.replace("\r\n", "\n")
        for line in case.says:
            assert re.search(f"^{line}$", lines, re.MULTILINE), (line, body)
        for line in case.lacks:
            assert not re.search(f"^{line}$", lines, re.MULTILINE), (line, body)
        if case.status >= 400:
            assert response.content_type == "application/problem+json"
        elif case.method != "POST":
            assert not body
        return body


def by_requirement(case: Case) -> str:
    return f"{case.method} {case.requirement}"
