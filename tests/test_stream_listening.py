"""Who can reach the server, what it needs then, and its certificate."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import logging
import os
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from aiohttp import ClientSession, web
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from engines import ColourEngine
from peers import DEADLINE_S

from stream import tls
from stream.addresses import list_addresses
from stream.config import ServerConfig
from stream.errors import ConfigRefused
from stream.invitation import invite, to_terminal
from stream.listening import Reach, bind, check_reach, find_reach, list_listening, list_own_names
from stream.self_signed import FILE_NAME, LOOPBACK, find_or_make, find_state_folder, make
from stream.server import _list_names, create_app, serve
from stream.tls import Tls, TlsSite, load_context, redirect
from stream.tokens import Token

TOKEN = "t" * 16
NAMED = (Token("ann", "a" * 16),)
HOME = (ipaddress.ip_address("192.168.1.7"), ipaddress.ip_address("fd00::7"))
OPEN = (*HOME, ipaddress.ip_address("2a00:1450:4001::7"))
PUBLIC_IP = ipaddress.ip_address("203.0.113.7")
ANYWHERE = "0.0.0.0"


@pytest.mark.parametrize(
    ("addresses", "public_ip", "reach"),
    [
        ((), None, Reach.MACHINE),
        (HOME, None, Reach.NETWORK),
        ((ipaddress.ip_address("100.64.0.9"),), None, Reach.NETWORK),
        (OPEN, None, Reach.PUBLIC),
        (HOME, PUBLIC_IP, Reach.PUBLIC),
        ((), PUBLIC_IP, Reach.PUBLIC),
    ],
)
def test_reach(addresses: tuple, public_ip: object, reach: Reach) -> None:
    """Strangers come where one address is of the open internet, or is said to be behind one."""
    assert find_reach(addresses, public_ip) is reach  # type: ignore[arg-type]


LACKS_EITHER = "--token @FILE .* or --tls self-signed"
LACKS_TOKEN = "--token @FILE with 16 characters or more"
LACKS_TLS = "--cert and --key, or --tls proxy"


@pytest.mark.parametrize(
    ("addresses", "options", "lacks"),
    [
        ((), {}, []),
        (HOME, {}, [LACKS_EITHER]),
        (HOME, {"token": "short"}, []),
        (HOME, {"tokens": NAMED}, []),
        (HOME, {"tls": Tls("self-signed")}, []),
        (HOME, {"tls": Tls("proxy")}, []),
        (OPEN, {}, [LACKS_TOKEN, LACKS_TLS]),
        (OPEN, {"token": TOKEN}, [LACKS_TLS]),
        (OPEN, {"tls": Tls("self-signed")}, [LACKS_TOKEN]),
        (OPEN, {"tls": Tls("proxy"), "token": "short"}, [LACKS_TOKEN]),
        (OPEN, {"tls": Tls("proxy"), "token": TOKEN}, []),
        (OPEN, {"tls": Tls(cert=Path("c"), key=Path("k")), "tokens": NAMED}, []),
        (HOME, {"public_ip": PUBLIC_IP, "token": TOKEN}, [LACKS_TLS]),
        ((), {"public_ip": PUBLIC_IP}, [LACKS_TOKEN]),
        ((), {"public_ip": PUBLIC_IP, "token": TOKEN}, []),
    ],
)
def test_what_a_server_needs(
    addresses: tuple,
    options: dict[str, object],
    lacks: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At home a token or TLS, in the open both, on loopback nothing; else one sentence says how."""
    config = ServerConfig(ANYWHERE, **options)  # type: ignore[arg-type]
    if not lacks:
        check_reach(config, addresses)
        return
    with pytest.raises(ConfigRefused, match=".*; and ".join(lacks)) as refused:
        check_reach(config, addresses)
    said = str(refused.value)
    assert said.endswith("--insecure lets anybody in")
    assert (LACKS_TLS[:6] in said) == (LACKS_TLS in lacks)
    assert "\n" not in said
    check_reach(replace(config, is_insecure=True), addresses)
    assert "lets anybody in" in caplog.text


async def test_open_server_does_not_start() -> None:
    """Serve on every address without token and TLS is refused before anything is loaded."""
    built: list[ColourEngine] = []

    def build() -> ColourEngine:
        built.append(ColourEngine())
        return built[-1]

    with pytest.raises(ConfigRefused, match=r"to listen on 0\.0\.0\.0.* needs "):
        await serve(ServerConfig(ANYWHERE, 0), build)
    assert not built


def test_listening_addresses() -> None:
    """A socket on every address is reached at those of its family, one on loopback at none."""
    with bind(ServerConfig("127.0.0.1", 0)) as sock:
        assert list_listening(sock) == ()
    with bind(ServerConfig(ANYWHERE, 0)) as sock:
        found = list_listening(sock)
        assert found == tuple(each for each in list_addresses() if each.version == 4)
    if found:
        with bind(ServerConfig(str(found[0]), 0)) as sock:
            assert list_listening(sock) == found[:1]


# The certificate.


def names_of(path: Path) -> set[str]:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    names = extension.value.get_values_for_type(x509.DNSName)
    return {*names, *map(str, extension.value.get_values_for_type(x509.IPAddress))}


def test_certificate_is_kept(tmp_path: Path) -> None:
    """A certificate names what it is for, is its owner's alone, and is the same the next time."""
    folder = tmp_path / "state" / "sdxs-live"
    path = find_or_make(folder, ("localhost", "studio.local"), HOME)
    assert path == folder / FILE_NAME
    assert names_of(path) == {"localhost", "studio.local", *map(str, HOME)}
    assert [each.name for each in folder.iterdir()] == [FILE_NAME]
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    before = path.read_bytes()
    # One address less is no reason: the browser's exception would be lost.
    assert find_or_make(folder, ("localhost",), HOME[:1]).read_bytes() == before
    load_context(path, path)


def age(path: Path, days: float) -> None:
    now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
    path.write_bytes(make(("localhost",), HOME, now))


def spoil_key(path: Path) -> None:
    other = make(("localhost",), HOME)
    key, certificate = path.read_bytes(), other[other.index(b"-----BEGIN CERT") :]
    path.write_bytes(key[: key.index(b"-----BEGIN CERT")] + certificate)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.unlink(), "there was none"),
        (lambda path: path.write_bytes(b"nonsense"), "cannot be read"),
        (lambda path: path.chmod(0o644), "others could read the key"),
        (spoil_key, "has another key"),
        (lambda path: age(path, 370), "is good from "),
        (lambda path: age(path, 500), "is good from "),
        (lambda path: age(path, -2), "is good from "),
        (
            lambda path: path.write_bytes(make(("localhost",), HOME[:1])),
            "is not for fd00::7",
        ),
        (lambda path: path.write_bytes(make(("other",), HOME)), "is not for localhost"),
    ],
)
def test_certificate_is_made_anew(
    spoil: object, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is lost, spoiled, shared, about to expire or for other addresses is made anew."""
    path = find_or_make(tmp_path, ("localhost",), HOME)
    spoil(path)  # type: ignore[operator]
    before = path.read_bytes() if path.exists() else b""
    caplog.set_level(logging.INFO)
    caplog.clear()
    find_or_make(tmp_path, ("localhost",), HOME)
    assert reason in caplog.text
    assert path.read_bytes() != before
    assert path.stat().st_mode & 0o777 == 0o600
    load_context(path, path)


def test_state_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is systemd's, or where the desktop's standard says, or below the user's home."""
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/one:/two")
    assert find_state_folder() == tmp_path / "one"
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert find_state_folder() == tmp_path / "sdxs-live"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert find_state_folder() == Path.home() / ".local/state/sdxs-live"


def test_folder_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    """A state folder that cannot be made is named, with what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigRefused, match=r"--tls self-signed: .*cannot be written: .*XDG_STATE"):
        find_or_make(tmp_path / "file" / "state", ("localhost",), HOME)


@pytest.mark.parametrize(
    ("make_tls", "sentence"),
    [
        (lambda _: Tls(cert=Path("c")), "--cert and --key belong together"),
        (lambda _: Tls(key=Path("k")), "--cert and --key belong together"),
        (lambda _: Tls("self-signed", Path("c"), Path("k")), "has no use for --cert"),
        (lambda path: load_context(path / "no", path / "no"), "cannot be read: No such file"),
        (lambda path: load_context(path / "text", path / "text"), "cannot be used: not pem"),
        (lambda path: load_context(path / "cert", path / "locked"), "cannot be used: "),
        (lambda path: load_context(path / "cert", path / "other"), "used: key values mismatch"),
    ],
)
def test_unusable_certificate_is_one_sentence(
    make_tls: object, sentence: str, tmp_path: Path
) -> None:
    """What cannot serve as certificate and key is named, and nobody waits for a password."""
    pem = make(("localhost",), ())
    key = serialization.load_pem_private_key(pem, None)
    (tmp_path / "text").write_text("hello")
    (tmp_path / "cert").write_bytes(pem)
    (tmp_path / "other").write_bytes(make(("localhost",), ()))
    (tmp_path / "locked").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"hush"),
        )
    )
    with pytest.raises(ConfigRefused, match=sentence) as refused:
        make_tls(tmp_path)  # type: ignore[operator]
    assert "\n" not in str(refused.value)


# https and http on one port.


@asynccontextmanager
async def tls_server(tmp_path: Path, config: ServerConfig | None = None) -> AsyncIterator[int]:
    """Serve with a certificate of our own; yields the port."""
    config = config or ServerConfig(port=0, tls=Tls("self-signed"))
    path = find_or_make(tmp_path, ("localhost",), LOOPBACK)
    runner = web.AppRunner(create_app(config, ColourEngine))
    await runner.setup()
    with bind(config) as sock:
        try:
            await TlsSite(runner, sock, load_context(path, path)).start()
            yield sock.getsockname()[1]
        finally:
            await runner.cleanup()


async def test_https_and_http_share_a_port(tmp_path: Path) -> None:
    """The certificate is for the address, http is sent to https, and https answers."""
    async with tls_server(tmp_path) as port, ClientSession() as http:
        trusting = ssl.create_default_context(cafile=str(tmp_path / FILE_NAME))
        for host in ("localhost", "127.0.0.1"):
            async with http.get(f"https://{host}:{port}/healthz", ssl=trusting) as response:
                assert (response.status, response.version) == (200, (1, 1))
            url = f"http://{host}:{port}/view/x?muted=1"
            async with http.get(url, allow_redirects=False) as response:
                assert response.status == 307
                assert response.headers["Location"] == f"https://{host}:{port}/view/x?muted=1"
        async with http.get(f"http://localhost:{port}/healthz", ssl=trusting) as response:
            assert (response.status, response.url.scheme) == (200, "https")
        async with http.post(f"http://localhost:{port}/whip", data=b"v=0") as response:
            assert response.status == 400


async def test_strangers_to_the_protocol_hold_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent, broken, suspicious and endless connections end by themselves; others go on."""
    monkeypatch.setattr(tls, "FIRST_BYTE_S", 0.3)
    monkeypatch.setattr(tls, "MAX_SILENT", 6)
    async with tls_server(tmp_path) as port, ClientSession() as http, asyncio.timeout(DEADLINE_S):
        pipes = [await asyncio.open_connection("127.0.0.1", port) for _ in range(12)]
        for (_, writer), data in zip(
            pipes, (b"\x16\x03\x01", b"\x16" * 600, b"GET /", b"x" * 9000, b"\x80"), strict=False
        ):
            writer.write(data)
        pipes[6][1].close()
        with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
            await http.get(f"https://127.0.0.1:{port}/healthz")
        async with http.get(f"https://127.0.0.1:{port}/healthz", ssl=False) as response:
            assert response.status == 200
        # All but the one that has begun a handshake, which is given longer.
        for reader, writer in pipes[1:6] + pipes[7:]:
            with suppress(ConnectionError):
                await reader.read()
            writer.close()
        pipes[0][1].close()
    left = [task.get_name() for task in asyncio.all_tasks()]
    assert not {"accept", "first byte"} & set(left)


@pytest.mark.parametrize(
    ("head", "answer"),
    [
        (b"GET /a?b HTTP/1.1\r\nHost: x:1\r\n\r\n", b"Location: https://x:1/a?b\r\n"),
        (b"HEAD / HTTP/1.0\r\nA: b\r\nhost:[::1]:8\r\n\r\n", b"Location: https://[::1]:8/\r\n"),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\nX: y\r\n\r\n", b" 400 "),
        (b"GET //evil.example HTTP/1.1\r\nHost: x\r\n\r\n", b"https://x//evil.example\r\n"),
        (b"GET http://evil/ HTTP/1.1\r\nHost: x\r\n\r\n", b" 400 "),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", b" 400 "),
        (b"GET /\r\nSet-Cookie:x HTTP/1.1\r\nHost: x\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\nHost: x\nSet-Cookie: y\r\n\r\n", b" 400 "),
    ],
)
def test_redirect_says_nothing_of_its_own(head: bytes, answer: bytes) -> None:
    """A request is sent to its own host and path; what is no plain request is refused."""
    said = redirect(head)
    assert answer in said
    assert b"Set-Cookie" not in said
    assert said.count(b"\r\n\r\n") == 1


async def test_serve_speaks_https(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Serve with --tls self-signed on every address names them all in its certificate."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def on_listening(address: str, _: object) -> None:
        told.set_result(address)

    config = ServerConfig(ANYWHERE, 0, names=("studio.example",), tls=Tls("self-signed"))
    config = replace(config, is_insecure=True)  # should this machine be in the open
    running = asyncio.create_task(serve(config, ColourEngine, on_listening=on_listening))
    async with asyncio.timeout(DEADLINE_S), ClientSession() as http:
        address = await told
        assert address.startswith("https://127.0.0.1:")
        path = tmp_path / "sdxs-live" / FILE_NAME
        own = {str(each) for each in list_addresses() if each.version == 4}
        assert {"localhost", "127.0.0.1", "studio.example", *own} <= names_of(path)
        assert set(list_own_names()) <= names_of(path)
        for name in list_own_names():
            async with http.get(
                f"{address}/healthz", ssl=False, headers={"Host": name}
            ) as response:
                assert response.status == 200
        os.kill(os.getpid(), signal.SIGTERM)
        await running


def test_own_names_are_not_known_on_loopback() -> None:
    """A server for this machine alone does not answer under the machine's name."""
    assert set(_list_names(ServerConfig())) == {"127.0.0.1"}
    assert set(list_own_names()) <= set(_list_names(ServerConfig(ANYWHERE)))


# The phone's address.


@pytest.mark.parametrize(
    ("config", "is_terminal", "ending"),
    [
        (ServerConfig(), True, None),
        (ServerConfig(ANYWHERE, token=TOKEN), True, None),
        (ServerConfig(tls=Tls("self-signed")), True, None),
        (
            ServerConfig("192.168.1.7", tls=Tls("self-signed"), token=TOKEN),
            True,
            f"for a phone: https://192.168.1.7:8443/#{TOKEN}",
        ),
        (
            ServerConfig("192.168.1.7", tls=Tls("self-signed"), token=TOKEN),
            False,
            "for other machines: https://192.168.1.7:8443/",
        ),
        (
            ServerConfig("fd00::7", tls=Tls("self-signed"), tokens=NAMED),
            True,
            "for a phone: https://[fd00::7]:8443/",
        ),
        (
            ServerConfig(ANYWHERE, names=("studio.example",), tls=Tls("self-signed")),
            True,
            "for a phone: https://studio.example:8443/",
        ),
    ],
)
def test_phone_is_invited(config: ServerConfig, is_terminal: bool, ending: str | None) -> None:
    """A terminal shows a code with the token; a log has the address without it; else nothing."""
    lines = invite(config, "https://127.0.0.1:8443", is_terminal=is_terminal)
    if ending is None:
        assert lines == ""
        return
    assert lines.endswith(ending)
    code = to_terminal(ending.rpartition(" ")[2])
    assert (code in lines) == is_terminal
    assert is_terminal or TOKEN not in lines


def test_code_is_read_by_a_phone() -> None:
    """What the terminal shows is the address, read by OpenCV as a camera would."""
    url = f"https://192.168.1.7:8443/#{TOKEN}"
    rows = to_terminal(url).splitlines()
    light = {"█": (1, 1), "▀": (1, 0), "▄": (0, 1), " ": (0, 0)}
    text = [row for row in rows if row.strip("\x1b[]0123456789;m")]
    matrix = []
    for row in text:
        cells = [light[char] for char in row if char in light]
        matrix += [[cell[0] for cell in cells], [cell[1] for cell in cells]]
    image = np.kron(np.array(matrix, np.uint8) * 255, np.ones((8, 8), np.uint8))
    found = {cv2.QRCodeDetector().detectAndDecode(each)[0] for each in (image, 255 - image)}
    assert url in found
