"""STUN and TURN servers, and credentials for one session."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time

import pytest
from engines import ColourEngine
from offers import obs
from peers import flat, serving

from stream.config import ServerConfig
from stream.errors import ConfigRefused
from stream.ice_servers import CREDENTIAL_S, IceServer, lend, to_browser

SDP = {"Content-Type": "application/sdp"}
SECRET = "north"
STUN = IceServer("stun:stun.example")
LENT = IceServer("turn:turn.example")
OWN = IceServer("turns:other.example", "ann", "hush")


def test_credentials_are_what_coturn_expects() -> None:
    """The user name is the expiry and a name, the credential its HMAC-SHA1 (TURN REST, 2.2).

    ``printf 1700043200:ann | openssl dgst -sha1 -hmac north -binary | base64`` says the same.
    """
    stun, lent, own = lend((STUN, LENT, OWN), SECRET, "ann", now_s=1_700_000_000)
    assert (stun, own) == (STUN, OWN)
    assert lent == IceServer("turn:turn.example", "1700043200:ann", "Y815wedbqVOoE/qJ5d8csukTVCk=")


def test_browsers_get_what_they_take() -> None:
    """Servers without credentials have none, the others both parts."""
    assert to_browser((STUN, OWN)) == [
        {"urls": "stun:stun.example"},
        {"urls": "turns:other.example", "username": "ann", "credential": "hush"},
    ]


@pytest.mark.parametrize(
    ("servers", "secret", "sentence"),
    [
        ((LENT,), "", "--ice-server turn:turn.example needs credentials"),
        ((STUN, OWN), SECRET, "--turn-secret belongs to an --ice-server turn:HOST without a user"),
    ],
)
def test_secret_and_servers_belong_together(
    servers: tuple[IceServer, ...], secret: str, sentence: str
) -> None:
    """A TURN server that nobody could use, and a secret that is for none, are refused."""
    with pytest.raises(ConfigRefused, match=sentence):
        ServerConfig(ice_servers=servers, turn_secret=secret)


async def test_each_session_has_its_own() -> None:
    """WHIP's and WHEP's Link and the page's list have credentials, good for hours, none alike."""
    config = ServerConfig(ice_servers=(STUN, LENT), turn_secret=SECRET)
    assert SECRET not in repr(config)
    async with serving(ColourEngine, config) as server:
        links = []
        publisher = await server.publish(flat((0, 0, 0)))
        for path in ("/whip", f"/whep/{publisher.id}"):
            offer = obs() if path == "/whip" else obs().replace("a=sendonly", "a=recvonly")
            async with server.http.post(server.base + path, data=offer, headers=SDP) as response:
                assert response.status == 201
                links.append(", ".join(response.headers.getall("Link")))
        pairs = []
        for link in links:
            assert link.startswith('<stun:stun.example>; rel="ice-server", <turn:turn.example>;')
            (pair,) = re.findall(r'username="([^"]+)"; credential="([^"]+)"', link)
            pairs.append(pair)
        for _ in range(2):
            async with server.http.get(f"{server.base}/api/ice-servers") as response:
                assert response.headers["Cache-Control"] == "no-store"
                first, second = (await response.json())["iceServers"]
            assert first == {"urls": "stun:stun.example"}
            assert second.keys() == {"urls", "username", "credential"}
            pairs.append((second["username"], second["credential"]))
    assert len(set(pairs)) == 4
    for username, credential in pairs:
        expiry = int(username.partition(":")[0])
        assert abs(expiry - CREDENTIAL_S - time.time()) < 60
        digest = hmac.digest(SECRET.encode(), username.encode(), hashlib.sha1)
        assert base64.b64decode(credential) == digest


async def test_credentials_are_for_who_has_the_token() -> None:
    """Without the token there are no credentials, with it there are."""
    config = ServerConfig(ice_servers=(LENT,), turn_secret=SECRET, token="hush")
    async with serving(ColourEngine, config) as server:
        url = f"{server.base}/api/ice-servers"
        async with server.http.get(url) as response:
            assert response.status == 401
            assert "credential" not in await response.text()
        async with server.http.get(url, headers={"Authorization": "Bearer hush"}) as response:
            assert response.status == 200
