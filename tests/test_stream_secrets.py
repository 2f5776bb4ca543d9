"""What must be in no log: tokens, ICE passwords, TURN credentials, addresses of sessions."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientSession
from engines import ColourEngine
from offers import obs
from peers import Peer, Player, flat, serving
from test_run import ROOT, read_address

from stream import rtp
from stream.config import ServerConfig
from stream.http_log import HttpLog
from stream.ice_servers import IceServer
from stream.server import serve
from stream.sessions import Sessions
from stream.tokens import Token

COLOUR = (200, 120, 40)
TOKEN = "the-operators-own-token"
ANN = Token("ann", "ann-" + "a" * 20)
SECRET = "shared-with-the-relay"
PASSWORD = "static-relay-password"
SDP = {"Content-Type": "application/sdp"}


class Told(Exception):
    """Ends a server that has told what it had to."""


def bearer(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


async def test_nothing_that_is_logged_lets_anybody_in(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session of each kind, refusals and a mistake of ours, all libraries at DEBUG: no secret."""
    caplog.set_level(logging.DEBUG)
    config = ServerConfig(
        token=TOKEN,
        tokens=(ANN,),
        turn_secret=SECRET,
        ice_servers=(IceServer("turn:a.example"), IceServer("turn:b.example", "me", PASSWORD)),
    )
    secrets = {TOKEN, ANN.value, SECRET, PASSWORD}
    with rtp.installed():
        async with serving(ColourEngine, config) as server:
            peer = Peer(server.http, server.base, flat(COLOUR))
            server.peers.append(peer)
            peer.pc.addTrack(peer.camera)
            await peer.post("/sessions?name=studio", **bearer(ANN.value))
            await peer.until_frames(3)
            player = Player(server.http, server.base)
            server.peers.append(player)
            await player.connect("studio", **bearer(TOKEN))
            await player.until_frames(2)
            for each in (peer, player):
                secrets.add(each.location.rpartition("/")[2])
                for description in (each.pc.localDescription, each.pc.remoteDescription):
                    secrets.update(re.findall(r"a=ice-pwd:(\S+)", description.sdp))
            async with server.http.post(
                f"{server.base}/whip", data=obs(), headers={**SDP, **bearer(TOKEN)}
            ) as response:
                assert response.status == 201
                credentials = re.findall(
                    r'credential="([^"]+)"', ",".join(response.headers.getall("Link"))
                )
                assert len(credentials) == 2
                secrets.update(credentials)
                secrets.add(response.headers["Location"].rpartition("/")[2])
                secrets.update(re.findall(r"a=ice-pwd:(\S+)", await response.text()))
            spoiled = re.sub(r"a=rtpmap:.*\n", "a=rtpmap:x\r\n", obs())
            for data, value, status in (
                (obs(), TOKEN + "x", 401),
                (spoiled, TOKEN, 400),
                (obs().replace("a=setup:actpass", "a=setup:holdconn"), TOKEN, 400),
            ):
                async with server.http.post(
                    f"{server.base}/whip", data=data, headers={**SDP, **bearer(value)}
                ) as response:
                    assert response.status == status, await response.text()

            def stumble(*_: object) -> None:
                raise RuntimeError("a mistake")

            monkeypatch.setattr(Sessions, "camera", stumble)
            async with server.http.get(
                f"{server.base}{peer.location}/controls", headers=bearer(TOKEN)
            ) as response:
                assert response.status == 500
            monkeypatch.undo()
            async with server.http.get(f"{server.base}/metrics", headers=bearer(TOKEN)) as response:
                shown = await response.text()
    log = caplog.handler.format
    # The test's server writes an access log, which serve() never does.
    text = "\n".join(log(each) for each in caplog.records if each.name != "aiohttp.access")
    names = {record.name.partition(".")[0] for record in caplog.records}
    assert {"aioice", "aiortc", "stream"} <= names
    assert "a mistake" in text
    assert "/sessions/{id}/controls failed" in text
    assert len(secrets) >= 12
    assert [secret for secret in secrets if secret in text or secret in shown] == []


REST = "HTTP/1.1\r\nHost: localhost\r\n"
MALFORMED = (
    f"GET /metrics {REST}Authorization: Bearer {TOKEN}\x01\r\n\r\n",
    f"GET /sessions/{SECRET}/controls\x01 {REST}\r\n",
    f"GET /{PASSWORD * 1000} {REST}\r\n",
    f"{PASSWORD}\r\n\r\n",
    f"POST /whip {REST}Content-Type: application/sdp\r\nContent-Encoding: gzip\r\n"
    f"Content-Length: {len(PASSWORD)}\r\n\r\n{PASSWORD}",
)


async def test_what_is_no_http_is_counted_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A request that is malformed by one character leaves its token, and itself, in no log."""
    caplog.set_level(logging.DEBUG)

    async def send(address: str, _: object) -> None:
        port = urlsplit(address).port
        for text in MALFORMED:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(text.encode("latin-1"))
            assert (await reader.read()).startswith(b"HTTP/1.")
            writer.close()
        async with ClientSession() as http, http.get(f"{address}/metrics") as response:
            shown.append(await response.text())
        raise Told

    shown: list[str] = []
    with pytest.raises(ExceptionGroup):
        await serve(ServerConfig(port=0), ColourEngine, on_listening=send)
    text = "\n".join(caplog.handler.format(each) for each in caplog.records)
    assert not [each for each in (TOKEN, SECRET, PASSWORD) if each in text]
    assert "not HTTP" in text
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
    (count,) = re.findall(r'stream_refusals_total\{reason="not_http"\} (\S+)', shown[0])
    assert float(count) >= len(MALFORMED) - 1  # the coding's fault may show in the body first


def test_who_leaves_while_a_file_is_sent_is_no_mistake_of_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of a client that leaves in the middle nothing is logged; of what we did wrong, all."""
    log = HttpLog(lambda: None)
    left, wrong = RuntimeError("Transport is closing"), RuntimeError("a mistake")
    for error in (left, wrong):
        log.exception("Unhandled exception", exc_info=error)
    (record,) = caplog.records
    assert record.name == "aiohttp.server"
    assert record.exc_info is not None
    assert record.exc_info[1] is wrong


def test_nothing_in_the_list_of_processes(tmp_path: Path) -> None:
    """A server whose secrets come from files has none in its command line, nor in its output."""
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "ice").write_text(f"turn:a.example\nturn:b.example,me,{PASSWORD}\n")
    command = [sys.executable, "run.py", "--port", "0", "--no-browser", "--size", "64"]
    command += ["--token", f"@{tmp_path}/token", "--turn-secret", f"@{tmp_path}/secret"]
    command += ["--ice-server", f"@{tmp_path}/ice", "--threads", "1"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as server:
        try:
            assert server.stdout is not None
            address, before = read_address(server.stdout)
            line = Path(f"/proc/{server.pid}/cmdline").read_text()
            request = urllib.request.Request(f"{address}/api/ice-servers", headers=bearer(TOKEN))
            with urllib.request.urlopen(request) as response:
                assert PASSWORD in response.read().decode()
            server.send_signal(signal.SIGINT)
            rest = b"".join(server.communicate(timeout=60)).decode()
        finally:
            server.kill()
    for secret in (TOKEN, SECRET, PASSWORD):
        assert secret not in "".join((line, address, *before, rest))
