"""WHEP, requirement by requirement (draft-ietf-wish-whep), and many viewers of one session."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from aiortc.sdp import SessionDescription
from conformance import CONFIG, FRAGMENT, ICE_SERVERS, ORIGIN, SDP, Case, ask, by_requirement
from engines import ColourEngine
from offers import obs, player
from peers import DEADLINE_S, Player, Serving, flat, serving

from stream import rtp
from stream.codecs import VideoEncoder
from stream.config import ServerConfig
from stream.corrections import Corrections

pytestmark = pytest.mark.usefixtures("corrected")

ORANGE = (200, 120, 40)
INVERTED = (55, 135, 215)
SWAPPED = (40, 120, 200)


@pytest.fixture
async def server() -> AsyncIterator[Serving]:
    """A server with one session to watch, under the name ``studio``."""
    async with serving(ColourEngine, CONFIG) as running:
        await ask(running, Case("", "POST", "/whip?name=studio", 201, obs(), SDP))
        yield running


def spoiled(old: str, new: str) -> str:
    assert old in player()
    return player().replace(old, new)


VIDEO = player()[player().index("m=video") : player().index("m=audio")]
ENDPOINT = [
    Case(
        "an offer is answered 201, with the answer and where the viewer lives",
        "POST",
        "/whep/studio",
        201,
        player(),
        SDP,
        {
            "Content-Type": "application/sdp",
            "Location": r"/whep/[\w-]{22}/[\w-]{22}",
            "ETag": None,
            "Link": ICE_SERVERS,
        },
    ),
    Case(
        "the answer sends and does not receive",
        "POST",
        "/whep/studio",
        201,
        player(),
        SDP,
        says=("a=sendonly",),
        lacks=("a=recvonly", "a=sendrecv", "a=inactive"),
    ),
    Case(
        "also where the player would send too",
        "POST",
        "/whep/studio",
        201,
        player().replace("recvonly", "sendrecv"),
        SDP,
        says=("a=sendonly",),
        lacks=("a=recvonly", "a=sendrecv", "a=inactive"),
    ),
    Case(
        "the answer chooses who begins with DTLS",
        "POST",
        "/whep/studio",
        201,
        player(),
        SDP,
        says=("a=setup:(active|passive)", "a=fingerprint:sha-256 .*"),
        lacks=("a=setup:actpass",),
    ),
    Case(
        "the answer has all candidates of the server",
        "POST",
        "/whep/studio",
        201,
        player(),
        SDP,
        says=("a=candidate:.* typ host.*", "a=end-of-candidates"),
    ),
    Case(
        "one bundle, with RTCP on the same port only",
        "POST",
        "/whep/studio",
        201,
        player(),
        SDP,
        says=("a=group:BUNDLE 0 1", "a=rtcp-mux", "a=rtcp-mux-only"),
        lacks=("m=(audio|video) 0 .*",),
    ),
    Case(
        "media outside of one bundle are refused",
        "POST",
        "/whep/studio",
        422,
        spoiled("BUNDLE 0 1", "BUNDLE 1"),
        SDP,
    ),
    Case(
        "a second video is refused as a whole",
        "POST",
        "/whep/studio",
        422,
        player().replace("BUNDLE 0 1", "BUNDLE 0 1 2") + VIDEO.replace("mid:0", "mid:2"),
        SDP,
    ),
    Case("SDP cut off is refused", "POST", "/whep/studio", 400, player()[:400], SDP),
    Case("the camera's own pictures", "POST", "/whep/studio?camera=1", 201, player(), SDP),
    Case("or not", "POST", "/whep/studio?camera=0", 201, player(), SDP),
    Case("and nothing else", "POST", "/whep/studio?camera=2", 422, player(), SDP),
    Case(
        "other methods are refused, and the known ones are told",
        "PUT",
        "/whep/studio",
        405,
        player(),
        SDP,
        {"Allow": "(?=.*GET)(?=.*POST)(?=.*OPTIONS).*"},
    ),
    Case(
        "Fetch: a page of another origin changes nothing, and is told nothing",
        "POST",
        "/whep/studio",
        403,
        player(),
        {**SDP, "Origin": "https://elsewhere.example"},
        {"Access-Control-Allow-Origin": None},
    ),
    Case("another type of body is refused", "POST", "/whep/studio", 415, player(), {}),
    Case("no SDP is refused", "POST", "/whep/studio", 400, "hello", SDP),
    Case(
        "a player that would send is refused",
        "POST",
        "/whep/studio",
        422,
        spoiled("recvonly", "sendonly"),
        SDP,
    ),
    Case(
        "no partial success: no codec that we have",
        "POST",
        "/whep/studio",
        422,
        spoiled("VP8/", "VP9/").replace("H264/", "H265/"),
        SDP,
    ),
    Case(
        "no partial success: no sound that we have",
        "POST",
        "/whep/studio",
        422,
        spoiled("opus/", "speex/"),
        SDP,
    ),
    Case("what is not there is 404", "POST", "/whep/nobody", 404, player(), SDP),
    Case(
        "HEAD tells what a POST takes",
        "HEAD",
        "/whep/studio",
        200,
        answer={"Content-Type": "application/sdp"},
    ),
    Case("GET is 2xx without content", "GET", "/whep/studio", 200),
    Case("and 404 where nothing is", "GET", "/whep/nobody", 404),
    Case(
        "OPTIONS tells what a POST takes, without ICE servers",
        "OPTIONS",
        "/whep/studio",
        200,
        request={"Origin": ORIGIN, "Access-Control-Request-Method": "POST"},
        answer={
            "Accept-Post": "application/sdp",
            "Link": None,
            "Access-Control-Allow-Origin": re.escape(ORIGIN),
            "Access-Control-Allow-Methods": ".*POST.*PATCH.*DELETE.*",
        },
    ),
    Case(
        "a page of a known origin can read what it needs",
        "POST",
        "/whep/studio",
        201,
        player(),
        {**SDP, "Origin": ORIGIN},
        {"Access-Control-Expose-Headers": "Location, Link, ETag.*"},
    ),
]
USABLE = (
    "a=ice-ufrag:nxcM\r\na=ice-pwd:ezjAjgSSLLvbRhUA1zc6Se\r\n"
    "m=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"
    "a=candidate:1 1 UDP 2122 192.0.2.18 40000 typ host\r\n"
)
SESSION = [
    Case("GET is 2xx without content", "GET", "{}", 204),
    Case("HEAD likewise", "HEAD", "{}", 204),
    Case("OPTIONS likewise", "OPTIONS", "{}", 200),
    Case(
        "Fetch: a page of a known origin may end it",
        "DELETE",
        "{}",
        200,
        request={"Origin": ORIGIN},
        answer={"Access-Control-Allow-Origin": re.escape(ORIGIN)},
    ),
    Case("a viewer is not posted to", "POST", "{}", 405, player(), SDP, {"Allow": ".*PATCH.*"}),
    Case("a malformed fragment is refused", "PATCH", "{}", 400, "hello", FRAGMENT),
    Case("a fragment of no known type is refused", "PATCH", "{}", 415, USABLE, {}),
    Case(
        "a candidate that we cannot use is skipped",
        "PATCH",
        "{}",
        204,
        USABLE.replace("UDP 2122", "TCP 2122").replace("192.0.2.18", "player.local"),
        FRAGMENT,
    ),
    Case("candidates are taken", "PATCH", "{}", 204, USABLE, FRAGMENT, {"ETag": None}),
    Case("in any state", "PATCH", "{}", 204, USABLE, {**FRAGMENT, "If-Match": "*"}),
    Case("not in another", "PATCH", "{}", 412, USABLE, {**FRAGMENT, "If-Match": '"one"'}),
    Case(
        "restarts are not supported",
        "PATCH",
        "{}",
        422,
        USABLE.replace("nxcM", "newU"),
        {**FRAGMENT, "If-Match": "*"},
    ),
    Case("nor a counter-offer, which we never make", "PATCH", "{}", 415, player(), SDP),
    Case("DELETE ends it", "DELETE", "{}", 200, request={"If-Match": '"one"'}),
]


@pytest.mark.parametrize("case", ENDPOINT, ids=by_requirement)
async def test_endpoint(server: Serving, case: Case) -> None:
    """The endpoint does what the draft requires."""
    await ask(server, case)
    assert len(server.sessions) == 1 + (case.status == 201)


@pytest.mark.parametrize("case", SESSION, ids=by_requirement)
async def test_session(server: Serving, case: Case) -> None:
    """A viewer's session does what the draft requires."""
    url = f"{server.base}/whep/studio"
    async with server.http.post(url, data=player(), headers=SDP) as response:
        location = response.headers["Location"]
    await ask(server, case, location)
    is_gone = case.method == "DELETE"
    assert len(server.sessions) == 2 - is_gone
    if case.method not in ("OPTIONS", "HEAD") and case.status != 405:
        unknown = replace(case, status=404, answer={})
        await ask(server, unknown, location if is_gone else "/whep/studio/nobody")


TOKEN = {"Authorization": "Bearer s3cret"}
GUARDED = [
    Case("an offer", "POST", "/whep/studio", 201, player(), SDP),
    Case("its discovery", "HEAD", "/whep/studio", 200),
    Case("its look", "GET", "/whep/studio", 200),
    Case("a viewer", "GET", "{}", 204),
    Case("a candidate", "PATCH", "{}", 204, USABLE, FRAGMENT),
    Case("the end", "DELETE", "{}", 200),
]


@pytest.mark.parametrize("case", GUARDED, ids=by_requirement)
async def test_token(case: Case) -> None:
    """With a token set every request has to bring it, but for what browsers ask (RFC 6750)."""
    async with serving(ColourEngine, replace(CONFIG, token="s3cret")) as server:
        opening = {**SDP, **TOKEN}
        await ask(server, Case("", "POST", "/whip?name=studio", 201, obs(), opening))
        async with server.http.post(
            f"{server.base}/whep/studio", data=player(), headers=opening
        ) as response:
            location = response.headers["Location"]
        await ask(server, replace(case, method="OPTIONS", status=200, body=""), location)
        wrong = {**case.request, "Authorization": "Bearer other"}
        for headers, challenge in ((case.request, ' realm=".*"'), (wrong, ' error=".*"')):
            refused = {"WWW-Authenticate": f"Bearer{challenge}"}
            await ask(server, replace(case, status=401, request=headers, answer=refused), location)
        await ask(server, replace(case, request={**case.request, **TOKEN}), location)


async def test_answer_sends_and_nothing_else(server: Serving) -> None:
    """The answer sends only, all on one port, with every candidate in it."""
    answer = await ask(server, Case("", "POST", "/whep/studio", 201, player(), SDP))
    description = SessionDescription.parse(answer)
    assert [media.direction for media in description.media] == ["sendonly"] * 2
    for section, media in zip(answer.split("\r\nm=")[1:], description.media, strict=True):
        assert "\r\na=rtcp-mux\r\na=rtcp-mux-only\r\n" in section
        assert media.ice_candidates_complete
    assert [codec.name for codec in description.media[1].rtp.codecs] == ["opus"]
    (bundle,) = [group for group in description.group if group.semantic == "BUNDLE"]
    assert bundle.items == ["0", "1"]
    assert len({media.msid.split()[0] for media in description.media if media.msid}) == 1


async def test_no_more_viewers_than_allowed(server: Serving) -> None:
    """With no room, 503 says how long to wait; viewers have a limit of their own."""
    config = ServerConfig(max_sessions=1, max_viewers=1)
    async with serving(ColourEngine, config) as full:
        await ask(full, Case("", "POST", "/whip?name=studio", 201, obs(), SDP))
        await ask(full, Case("", "POST", "/whep/studio", 201, player(), SDP))
        case = Case("", "POST", "/whep/studio", 503, player(), SDP, {"Retry-After": r"\d+"})
        await ask(full, case)


async def test_many_viewers_share_one_translation_and_one_encoding() -> None:
    """Four viewers of two codecs cost one translation of each frame, and two encoders."""
    engines: list[ColourEngine] = []

    def build() -> ColourEngine:
        engines.append(ColourEngine())
        return engines[-1]

    async with serving(build) as server:
        publisher = await server.publish(flat(ORANGE), "?prompt=invert")
        players = [await server.play(publisher.id, codec) for codec in ("VP8", "H264") * 2]
        await asyncio.gather(*(player.until_colour(INVERTED) for player in players))
        session = server.sessions.camera(publisher.id)
        before = len(engines[0].batches), session.stats.frames_in
        await asyncio.gather(*(player.until_frames(15) for player in players))
        translated = len(engines[0].batches) - before[0]
        arrived = session.stats.frames_in - before[1]
        assert translated <= arrived + 2
        assert len(session.encodings) == 2
        assert set(engines[0].batches) == {1}


async def test_viewer_who_comes_late_and_one_who_leaves() -> None:
    """A late viewer sees the picture at once; one that leaves takes nothing from the others."""
    async with serving(ColourEngine) as server:
        publisher = await server.publish(flat(ORANGE), "?prompt=invert")
        first = await server.play(publisher.id)
        await first.until_frames(10)
        late = await server.play(publisher.id)
        await late.until_colour(INVERTED)
        async with server.http.delete(server.base + late.location) as response:
            assert response.status == 200
        await first.until_frames(10)
        assert len(server.sessions) == 2


async def test_session_of_the_page_can_be_watched() -> None:
    """A streamer shows in a player what the page's own session is translated to."""
    async with serving(ColourEngine) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=invert&name=me")
        player = await server.play("me")
        await asyncio.gather(peer.until_colour(INVERTED), player.until_colour(INVERTED))
        await peer.ask({"prompt": "swap"})
        await asyncio.gather(peer.until_colour(SWAPPED), player.until_colour(SWAPPED))
        size = {(frame.width, frame.height) for frame in player.frames}
        assert size == {(160, 120)}


async def test_viewers_end_with_their_session() -> None:
    """When what they watch ends, viewers are let go."""
    async with serving(ColourEngine) as server:
        peer = await server.connect(flat(ORANGE))
        players = [await server.play(server.session(peer).id) for _ in range(2)]
        await asyncio.gather(*(player.until_frames(2) for player in players))
        tasks = list(server.app_tasks().values())
        async with server.http.delete(server.base + peer.location) as response:
            assert response.status == 200
        done, pending = await asyncio.wait(tasks, timeout=DEADLINE_S)
        assert (len(done), len(pending), len(server.sessions)) == (3, 0, 0)


def left_over(server: Serving) -> tuple[int, int, int, int]:
    session = server.sessions.camera("studio")
    parts = len(session.encodings._watchers), len(session.sound._tracks)
    return *parts, len(server.sessions), len(asyncio.all_tasks())


async def come_and_go(server: Serving, is_connected: bool, is_deleted: bool) -> None:
    viewer = Player(server.http, server.base)
    viewer.pc.addTransceiver("video", "recvonly")
    viewer.pc.addTransceiver("audio", "recvonly")
    await viewer.post("/whep/studio", answer=is_connected)
    if is_connected:
        await viewer.until_frames(2)
    task = server.app_tasks()[viewer.location.rpartition("/")[2]]
    assert left_over(server)[:3] == (1, 1, 2)
    if is_deleted:
        async with server.http.delete(server.base + viewer.location) as response:
            assert response.status == 200
    elif is_connected:
        await viewer.pc.close()
    done, _ = await asyncio.wait([task], timeout=DEADLINE_S)
    assert done
    await viewer.close()


async def test_viewers_leave_nothing_behind() -> None:
    """However viewers go, their part of the session they watched goes with them."""
    async with serving(ColourEngine, ServerConfig(connect_timeout_s=0.5)) as server:
        await server.publish(flat(ORANGE), "?name=studio")
        await come_and_go(server, True, True)  # the publisher connects meanwhile
        before = left_over(server)
        for is_connected in (True, False):
            for is_deleted in (True, False):
                await come_and_go(server, is_connected, is_deleted)
        after = left_over(server)
        assert after[:3] == before[:3] == (0, 0, 1)
        assert after[3] <= before[3] + 2  # aioice takes 20 ms to notice that it was closed


async def test_a_viewer_that_lost_a_picture_gets_a_key_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A viewer's request reaches the shared encoder."""
    asked: list[bool] = []
    encode_at: Callable[..., bytes] = VideoEncoder.encode_at

    def watch(self: VideoEncoder, plan: object, frame: object, force: bool = False) -> bytes:
        asked.append(force)
        return encode_at(self, plan, frame, force)

    monkeypatch.setattr(VideoEncoder, "encode_at", watch)
    async with serving(ColourEngine) as server:
        publisher = await server.publish(flat(ORANGE), "?prompt=invert")
        player = await server.play(publisher.id)
        await player.until_frames(20)
        asked.clear()
        (receiver,) = player.pc.getReceivers()
        await receiver._send_rtcp_pli(receiver._media_ssrc)
        await player.until(lambda: any(asked))


async def test_without_our_encoders_everybody_has_an_own_one() -> None:
    """With stock encoders viewers share the translation alone."""
    with rtp.installed(Corrections().without("encoders")):
        async with serving(ColourEngine) as server:
            publisher = await server.publish(flat(ORANGE), "?prompt=invert")
            players = [await server.play(publisher.id) for _ in range(2)]
            await asyncio.gather(*(player.until_colour(INVERTED) for player in players))
            assert len(server.sessions.camera(publisher.id).encodings) == 0
