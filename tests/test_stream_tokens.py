"""Named tokens: their file, their quotas, and whose session is whose."""

from __future__ import annotations

import asyncio
import hmac
import re
from pathlib import Path

import pytest
from engines import ColourEngine
from offers import obs
from peers import DEADLINE_S, Peer, Serving, flat, serving
from test_stream_signaling import make_offer

from pipeline.engines import Size
from stream.config import ServerConfig
from stream.errors import ConfigRefused, QuotaReached
from stream.quotas import Quotas
from stream.stats import Metrics
from stream.tokens import OPERATOR, Token, Tokens, read_tokens

COLOUR = (200, 120, 40)
ANN = Token("ann", "ann-" + "a" * 20, sessions=1, minutes=60, max_size=Size(160, 120))
BOB = Token("bob", "bob-" + "b" * 20)
MASTER = "the-operators-own-token"
SDP = {"Content-Type": "application/sdp"}
ENTRY = '[[token]]\nname = "ann"\ntoken = "0123456789abcdef"\n'


def bearer(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


# The file.


def test_file_is_read(tmp_path: Path) -> None:
    """Every field of every entry arrives; what is left out is without a limit."""
    path = tmp_path / "tokens.toml"
    path.write_text(
        ENTRY + 'sessions = 2\nminutes = 90.5\nmax_size = "1280x720"\n'
        '[[token]]\nname = "bob"\ntoken = "fedcba9876543210"\nminutes = 5\n'
    )
    assert read_tokens(path) == (
        Token("ann", "0123456789abcdef", 2, 90.5, Size(1280, 720)),
        Token("bob", "fedcba9876543210", minutes=5),
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "must have [[token]] entries and nothing else"),
        ("token = 3", "must have [[token]] entries and nothing else"),
        ('[token]\nname = "a"', "must have [[token]] entries and nothing else"),
        (ENTRY + "[other]\n", "must have [[token]] entries and nothing else"),
        ("token = [1]", "entry 1 of FILE is not a table"),
        ("[[token]\n", "is not TOML: "),
        ("a = '\xff'", "is not TOML: "),
        ('[[token]]\nname = "ann"\n', "entry 1 of FILE, 'ann' needs a name = "),
        ('[[token]]\ntoken = "0123456789abcdef"\n', "entry 1 of FILE needs a name = "),
        ('[[token]]\nname = "ann"\ntoken = 7\n', "entry 1 of FILE, 'ann': token must be text"),
        ('[[token]]\nname = "ann"\ntoken = "short"\n', "its token needs 16 characters or more"),
        ('[[token]]\nname = "ann"\ntoken = "0123456789 abcdef"\n', "of letters, digits"),
        ('[[token]]\nname = "a b"\ntoken = "0123456789abcdef"\n', "name has 1 to 64 letters"),
        (
            f'[[token]]\nname = "{OPERATOR}"\ntoken = "0123456789abcdef"\n',
            "that is the name of --token",
        ),
        (ENTRY + "session = 2\n", "has 'session'; there are max_size, minutes, name, sessions"),
        (ENTRY + "sessions = 0\n", 'the sessions of the token "ann" must be at least 1 (got 0)'),
        (ENTRY + "sessions = 1.5\n", "'ann': sessions must be a whole number"),
        (ENTRY + "sessions = true\n", "'ann': sessions must be a whole number"),
        (ENTRY + "minutes = -3\n", 'minutes of the token "ann" must be above 0'),
        (ENTRY + "minutes = nan\n", 'minutes of the token "ann" must be above 0'),
        (ENTRY + "max_size = 640\n", "max_size must be text such as"),
        (ENTRY + 'max_size = "big"\n', "a size is written"),
    ],
)
def test_wrong_entry_is_named(text: str, sentence: str, tmp_path: Path) -> None:
    """What is wrong in the file is one sentence that names the entry and never a token."""
    path = tmp_path / "tokens.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigRefused) as refused:
        read_tokens(path)
    said = str(refused.value).replace(str(path), "FILE")
    assert sentence in said
    assert said.startswith("--tokens: ")
    assert "0123456789" not in said
    assert "\n" not in said


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(ConfigRefused, match=re.escape(f"{tmp_path / 'gone'} cannot be read: No")):
        read_tokens(tmp_path / "gone")


def test_file_that_others_can_read_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that others on the machine can read is taken, with a warning."""
    path = tmp_path / "tokens.toml"
    path.write_text(ENTRY)
    path.chmod(0o600)
    read_tokens(path)
    assert not caplog.text
    path.chmod(0o644)
    read_tokens(path)
    assert "chmod 600" in caplog.text


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        ((ANN, Token("ann", BOB.value)), 'two tokens have the name "ann"'),
        ((ANN, Token("eve", ANN.value)), 'the tokens "ann" and "eve" have the same value'),
        ((Token("eve", MASTER),), f'the tokens "{OPERATOR}" and "eve" have the same value'),
    ],
)
def test_tokens_are_distinct(tokens: tuple[Token, ...], sentence: str) -> None:
    """Two tokens of one name, or of one value, are refused without showing the value."""
    with pytest.raises(ConfigRefused) as refused:
        ServerConfig(token=MASTER, tokens=tokens)
    assert sentence in str(refused.value)
    assert ANN.value not in str(refused.value)


def test_value_is_not_shown() -> None:
    """A configuration's text has the names of its tokens and no value."""
    shown = repr(ServerConfig(token=MASTER, tokens=(ANN, BOB)))
    assert "'ann'" in shown
    assert not any(value in shown for value in (ANN.value, BOB.value, MASTER))


# Finding.


def test_every_token_is_compared_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is given, as many comparisons are made as there are tokens, of equal length."""
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def note(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", note)
    tokens = Tokens((ANN, BOB))
    for given, found in (
        (ANN.value, ANN),
        (BOB.value, BOB),
        (ANN.value[:-1], None),
        (ANN.value + "=", None),
        ("", None),
        ("\udcff" * 4, None),
        ("ü", None),
    ):
        compared.clear()
        assert tokens.find(given) is found
        assert compared == [(32, 32), (32, 32)]


# Quotas, by a clock that the test turns.


class HeldSession:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self.dismissed: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def notice(self, level: str, detail: str) -> None:
        self.notices.append(detail)

    def dismiss(self, detail: str) -> None:
        self.dismissed.set_result(detail)


async def test_minutes_count_each_camera_and_no_viewer() -> None:
    """Two cameras use minutes twice as fast, viewers none; what was used survives reconnects."""
    now_s = 1000.0
    account = Quotas(Metrics(), lambda: now_s).account(ANN)
    first, second, viewer = HeldSession(), HeldSession(), HeldSession()
    account.enter(viewer, is_camera=False)
    now_s += 600
    assert account.left_s == 3600
    account.enter(first, is_camera=True)
    now_s += 600
    assert account.left_s == 3000
    account.enter(second, is_camera=True)
    now_s += 600
    assert account.left_s == 1800
    account.leave(first)
    account.leave(first)
    account.leave(second)
    now_s += 600
    assert account.left_s == 1800
    account.enter(first, is_camera=True)
    now_s += 1800
    assert account.left_s == 0
    account.leave(first)
    account.leave(viewer)
    with pytest.raises(QuotaReached, match='60 minutes of the token "ann" are used up') as refused:
        account.check(is_camera=True)
    assert (refused.value.status, refused.value.retry_after_s) == (403, None)
    account.check(is_camera=False)


async def test_sessions_at_once_have_a_limit() -> None:
    """A token's cameras and viewers together are limited, and there is room when one leaves."""
    account = Quotas(Metrics(), lambda: 0.0).account(ANN)
    viewer = HeldSession()
    account.check(is_camera=False)
    account.enter(viewer, is_camera=False)
    with pytest.raises(QuotaReached, match="1 session at once, and has 1") as refused:
        account.check(is_camera=True)
    assert (refused.value.status, refused.value.retry_after_s) == (429, 5)
    account.leave(viewer)
    account.check(is_camera=True)


async def test_end_of_the_minutes_is_announced() -> None:
    """Cameras are told a minute before, and dismissed when nothing is left; viewers are not."""
    now_s = 0.0
    loop = asyncio.get_running_loop()
    account = Quotas(Metrics(), lambda: now_s).account(Token("brief", "b" * 16, minutes=3))

    def due_s() -> float:
        assert account._timer is not None
        return account._timer.when() - loop.time()

    first, second, viewer = HeldSession(), HeldSession(), HeldSession()
    account.enter(viewer, is_camera=False)
    assert account._timer is None
    account.enter(first, is_camera=True)
    assert due_s() == pytest.approx(120, abs=5)
    now_s = 40
    account.enter(second, is_camera=True)
    assert due_s() == pytest.approx(40, abs=5)
    now_s = 80
    account._due()
    said = '60 seconds are left to the cameras of the token "brief"'
    assert first.notices == second.notices == [said]
    assert due_s() == pytest.approx(30, abs=5)
    account.leave(second)
    assert due_s() == pytest.approx(60, abs=5)
    now_s = 140
    account._due()
    assert first.dismissed.result() == 'the 3 minutes of the token "brief" are used up'
    assert first.notices == [said]
    assert not second.dismissed.done()
    assert not viewer.dismissed.done()
    account.leave(first)
    assert account._timer is None


# A server with two tokens and the operator's.


async def ask(server: Serving, method: str, path: str, value: str, **options: object) -> int:
    headers = {**bearer(value), **options.pop("headers", {})}  # type: ignore[dict-item]
    url = server.base + path
    async with server.http.request(method, url, headers=headers, **options) as response:  # type: ignore[arg-type]
        await response.read()
        return response.status


async def connect(server: Serving, token: Token, query: str = "", size: Size | None = None) -> Peer:
    width, height = (size.width, size.height) if size else (160, 120)
    peer = Peer(server.http, server.base, flat(COLOUR, (width, height)))
    server.peers.append(peer)
    peer.pc.addTrack(peer.camera)
    peer.channel.on("message", peer._on_message)
    await peer.post(f"/sessions{query}", **bearer(token.value))
    return peer


def config(**options: object) -> ServerConfig:
    return ServerConfig(token=MASTER, tokens=(ANN, BOB), **options)  # type: ignore[arg-type]


async def test_each_route_asks_for_a_token() -> None:
    """Only the page, its files, and what it shows before there is a session are for everybody."""
    async with serving(ColourEngine, config()) as server:
        open_, guarded = set(), set()
        for resource in server.app.router.resources():
            for route in resource:
                path = re.sub(r"\{name\}", "main.js", resource.canonical)
                path = re.sub(r"\{\w+\}", "x", path)
                async with server.http.request(route.method, server.base + path) as response:
                    is_open = response.status != 401
                if route.method != "OPTIONS":
                    (open_ if is_open else guarded).add(f"{route.method} {resource.canonical}")
    paths = ("/", "/{name}", "/view/{id}", "/healthz", "/readyz")
    lists = ("/api/styles", "/api/models", "/api/regions", "/api/keeping")
    assert open_ == {f"{method} {path}" for path in paths + lists for method in ("GET", "HEAD")}
    assert {"POST /sessions", "POST /whip", "POST /whep/{id}", "GET /metrics"} <= guarded


async def test_named_token_steers_its_own_sessions_alone() -> None:
    """Others' sessions are not there to steer, but there to watch; the operator steers all."""
    async with serving(ColourEngine, config()) as server:
        peer = await connect(server, ANN, "?name=studio")
        for path in (peer.location, "/sessions/studio"):
            for method, sub in (("GET", "/controls"), ("PATCH", "/controls"), ("DELETE", "")):
                assert await ask(server, method, path + sub, BOB.value, data=b"{}") == 404
        assert await ask(server, "DELETE", "/whip/studio", BOB.value) == 404
        assert await ask(server, "GET", "/sessions/studio/controls", ANN.value) == 200
        assert await ask(server, "GET", "/sessions/studio/controls", MASTER) == 200
        offer = await make_offer()
        for token, status in ((BOB.value, 409), (MASTER, 201)):
            path = "/sessions?name=studio"
            assert await ask(server, "POST", path, token, data=offer, headers=SDP) == status
        assert await ask(server, "DELETE", peer.location, MASTER) == 200


async def test_quotas_are_kept_and_shown_by_name() -> None:
    """One session more than the token's is 429, by WHIP too; metrics have names and no values."""
    async with serving(ColourEngine, config()) as server:
        peer = await connect(server, ANN)
        await peer.until_frames(2)
        for path, offer in (("/sessions", await make_offer()), ("/whip", obs())):
            async with server.http.post(
                server.base + path, data=offer, headers={**SDP, **bearer(ANN.value)}
            ) as response:
                assert (response.status, response.headers["Retry-After"]) == (429, "5")
                assert '"ann" is for 1 session at once' in (await response.json())["detail"]
        async with server.http.get(f"{server.base}/metrics", headers=bearer(BOB.value)) as response:
            text = await response.text()
        assert 'stream_token_sessions{token="ann"} 1.0' in text
        assert 'stream_token_refusals_total{quota="sessions",token="ann"} 2.0' in text
        assert ANN.value not in text
        assert await ask(server, "DELETE", peer.location, ANN.value) == 200
        again = await connect(server, ANN)
        await again.until_frames(2)


async def test_session_ends_when_the_minutes_are_used_up() -> None:
    """The peer is told why, the session ends, and another one is refused for good."""
    brief = Token("brief", "brief-" + "c" * 16, minutes=0.02)
    async with serving(ColourEngine, ServerConfig(tokens=(brief,))) as server:
        peer = await connect(server, brief)
        (task,) = server.app_tasks().values()
        message = await peer.until_message(lambda m: m["type"] == "farewell")
        assert message["detail"] == 'the 0.02 minutes of the token "brief" are used up'
        await asyncio.wait_for(task, DEADLINE_S)
        offer = await make_offer()
        async with server.http.post(
            f"{server.base}/sessions", data=offer, headers={**SDP, **bearer(brief.value)}
        ) as response:
            assert response.status == 403
            assert "are used up" in (await response.json())["detail"]


@pytest.mark.parametrize(("size", "is_taken"), [(Size(120, 160), True), (Size(176, 144), False)])
async def test_pictures_have_a_largest_size(size: Size, is_taken: bool) -> None:
    """A camera within the token's size is translated, upright too; a larger one has to go."""
    async with serving(ColourEngine, config()) as server:
        peer = await connect(server, ANN, size=size)
        if is_taken:
            await peer.until_frames(3)
            return
        (task,) = server.app_tasks().values()
        message = await peer.until_message(lambda m: m["type"] == "farewell")
        assert message["detail"] == 'the token "ann" is for pictures up to 160x120 (got 176x144)'
        await asyncio.wait_for(task, DEADLINE_S)
        assert not peer.frames


async def test_session_addresses_cannot_be_guessed() -> None:
    """Ids have 128 random bits, whole bytes of the system's generator, no two alike."""
    async with serving(ColourEngine) as server:
        ids = set()
        for _ in range(4):
            peer = await server.connect(flat(COLOUR))
            ids.add(peer.location.rpartition("/")[2])
        assert len(ids) == 4
        assert all(re.fullmatch(r"[A-Za-z0-9_-]{22}", ident) for ident in ids)
