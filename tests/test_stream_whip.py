"""WHIP, requirement by requirement (RFC 9725), and the offers of the programs that use it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from aiortc.sdp import SessionDescription
from conformance import CONFIG, FRAGMENT, ICE_SERVERS, ORIGIN, SDP, Case, ask, by_requirement
from engines import ColourEngine
from offers import gstreamer, obs, obs_older
from peers import DEADLINE_S, Publisher, Serving, flat, serving

from stream.config import IceServer, ServerConfig
from stream.errors import ConfigRefused

pytestmark = pytest.mark.usefixtures("corrected")

ORANGE = (200, 120, 40)
INVERTED = (55, 135, 215)
USABLE = (
    "a=ice-ufrag:nxcM\r\na=ice-pwd:ezjAjgSSLLvbRhUA1zc6Se\r\n"
    "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"
    "a=candidate:1 1 UDP 2122 192.0.2.18 40000 typ host\r\n"
)
RESTART = USABLE.replace("nxcM", "newU").replace("ezj", "new")


@pytest.fixture
async def server() -> AsyncIterator[Serving]:
    async with serving(ColourEngine, CONFIG) as running:
        yield running


def spoiled(old: str, new: str) -> str:
    offer = obs()
    assert old in offer
    return offer.replace(old, new)


VIDEO = obs()[obs().index("m=video") :]
ENDPOINT = [
    Case(
        "4.2: an offer is answered 201, with the answer and where the session lives",
        "POST",
        "/whip",
        201,
        obs(),
        SDP,
        {"Content-Type": "application/sdp", "Location": r"/whip/[\w-]{22}", "ETag": None},
    ),
    Case(
        "4.6: the 201 names the ICE servers",
        "POST",
        "/whip",
        201,
        obs(),
        SDP,
        {"Link": ICE_SERVERS},
    ),
    Case(
        "4.2: the answer receives and does not send",
        "POST",
        "/whip",
        201,
        obs(),
        SDP,
        says=("a=recvonly",),
        lacks=("a=sendonly", "a=sendrecv", "a=inactive"),
    ),
    Case(
        "4.2: also where the client would receive too",
        "POST",
        "/whip",
        201,
        obs().replace("sendonly", "sendrecv"),
        SDP,
        says=("a=recvonly",),
        lacks=("a=sendonly", "a=sendrecv", "a=inactive"),
    ),
    Case(
        "4.2: the answer chooses who begins with DTLS",
        "POST",
        "/whip",
        201,
        obs(),
        SDP,
        says=("a=setup:(active|passive)", "a=fingerprint:sha-256 .*"),
        lacks=("a=setup:actpass",),
    ),
    Case(
        "4.2: the answer has all candidates of the server",
        "POST",
        "/whip",
        201,
        obs(),
        SDP,
        says=("a=candidate:.* typ host.*", "a=end-of-candidates"),
    ),
    Case(
        "4.4.1: one bundle, with RTCP on the same port only",
        "POST",
        "/whip",
        201,
        obs(),
        SDP,
        says=("a=group:BUNDLE 0 1", "a=rtcp-mux", "a=rtcp-mux-only"),
        lacks=("m=(audio|video) 0 .*",),
    ),
    Case(
        "4.4.2: one stream is asked for; tracks of two are taken as of one",
        "POST",
        "/whip",
        201,
        obs().replace("msid:obs obs-audio", "msid:other obs-audio"),
        SDP,
    ),
    Case(
        "RFC 9110: parameters of the type do not matter, nor its case",
        "POST",
        "/whip",
        201,
        obs(),
        {"Content-Type": "Application/SDP; charset=utf-8"},
    ),
    Case(
        "RFC 9110: other methods are refused, and the known ones are told",
        "PUT",
        "/whip",
        405,
        obs(),
        SDP,
        {"Allow": "(?=.*GET)(?=.*POST)(?=.*OPTIONS).*"},
    ),
    Case("4.2: another type of body is refused", "POST", "/whip", 415, obs(), {}),
    Case("4.2: no SDP is refused", "POST", "/whip", 400, "hello", SDP),
    Case("4.2: SDP cut off is refused", "POST", "/whip", 400, obs()[:-600], SDP),
    Case(
        "4.2: a client that does not send is refused",
        "POST",
        "/whip",
        422,
        spoiled("sendonly", "recvonly"),
        SDP,
    ),
    Case(
        "4.4.1: media outside of one bundle are refused",
        "POST",
        "/whip",
        422,
        spoiled("BUNDLE 0 1", "BUNDLE 1"),
        SDP,
    ),
    Case(
        "4.4.2: a second video is refused as a whole",
        "POST",
        "/whip",
        422,
        obs().replace("BUNDLE 0 1", "BUNDLE 0 1 2") + VIDEO.replace("mid:1", "mid:2"),
        SDP,
    ),
    Case(
        "4.4.3: no partial success: video that we cannot decode",
        "POST",
        "/whip",
        422,
        spoiled("H264/90000", "H265/90000"),
        SDP,
    ),
    Case(
        "4.4.3: no partial success: sound that we cannot pass on",
        "POST",
        "/whip",
        422,
        spoiled("opus/48000/2", "mp4a-latm/48000/2"),
        SDP,
    ),
    Case("4.1: GET is 2xx without content", "GET", "/whip", 204),
    Case("4.1: HEAD likewise", "HEAD", "/whip", 204),
    Case(
        "4.2: OPTIONS tells what a POST takes, without ICE servers (4.6)",
        "OPTIONS",
        "/whip",
        200,
        answer={"Accept-Post": "application/sdp", "Link": None},
    ),
    Case(
        "Fetch: a page of a known origin may ask, and may read what it needs",
        "OPTIONS",
        "/whip",
        200,
        request={"Origin": ORIGIN, "Access-Control-Request-Method": "POST"},
        answer={
            "Access-Control-Allow-Origin": re.escape(ORIGIN),
            "Access-Control-Allow-Methods": ".*POST.*PATCH.*DELETE.*",
            "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
            "Vary": "Origin",
        },
    ),
    Case(
        "Fetch: and gets the answer",
        "POST",
        "/whip",
        201,
        obs(),
        {**SDP, "Origin": ORIGIN},
        {
            "Access-Control-Allow-Origin": re.escape(ORIGIN),
            "Access-Control-Expose-Headers": "Location, Link, ETag.*",
        },
    ),
    Case(
        "Fetch: a page of another origin is told nothing",
        "OPTIONS",
        "/whip",
        200,
        request={"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"},
        answer={"Access-Control-Allow-Origin": None},
    ),
    Case(
        "Fetch: and changes nothing",
        "POST",
        "/whip",
        403,
        obs(),
        {**SDP, "Origin": "https://elsewhere.example"},
        {"Access-Control-Allow-Origin": None},
    ),
    Case("a name must be one", "POST", "/whip?name=a/b", 422, obs(), SDP),
    Case("settings in the query are checked", "POST", "/whip?strength=9", 422, obs(), SDP),
]

SESSION = [
    Case("4.1: GET is 2xx without content", "GET", "{}", 204),
    Case("4.1: HEAD likewise", "HEAD", "{}", 204),
    Case("4.2: OPTIONS likewise", "OPTIONS", "{}", 200, answer={"Accept-Post": ".*"}),
    Case(
        "4.3.2: candidates are taken, without body and entity tag",
        "PATCH",
        "{}",
        204,
        USABLE,
        FRAGMENT,
        {"ETag": None, "Content-Type": None},
    ),
    Case(
        "Fetch: a page of a known origin may send candidates",
        "PATCH",
        "{}",
        204,
        USABLE,
        {**FRAGMENT, "Origin": ORIGIN},
        {"Access-Control-Allow-Origin": re.escape(ORIGIN)},
    ),
    Case("4.1: a session is not posted to", "POST", "{}", 405, obs(), SDP, {"Allow": ".*PATCH.*"}),
    Case("4.3.1: any state is matched", "PATCH", "{}", 204, USABLE, {**FRAGMENT, "If-Match": "*"}),
    Case("as browsers write it", "PATCH", "{}", 204, USABLE, {**FRAGMENT, "If-Match": '"*"'}),
    Case(
        "4.3.1: an entity tag that we did not give does not match",
        "PATCH",
        "{}",
        412,
        USABLE,
        {**FRAGMENT, "If-Match": '"one"'},
    ),
    Case(
        "4.3.2: a candidate that we cannot use is skipped",
        "PATCH",
        "{}",
        204,
        USABLE.replace("UDP 2122", "TCP 2122").replace("192.0.2.18", "cam.local"),
        FRAGMENT,
    ),
    Case("4.3.1: restarts are not supported", "PATCH", "{}", 422, RESTART, FRAGMENT),
    Case(
        "4.3.3: nor those that ask for any state",
        "PATCH",
        "{}",
        422,
        RESTART,
        {**FRAGMENT, "If-Match": "*"},
    ),
    Case("4.3.1: another type is refused", "PATCH", "{}", 415, USABLE, SDP),
    Case("4.3.1: a malformed fragment is refused", "PATCH", "{}", 400, "hello", FRAGMENT),
    Case(
        "4.2: DELETE ends the session, whatever the entity tag",
        "DELETE",
        "{}",
        200,
        request={"If-Match": '"one"'},
    ),
]


@pytest.mark.parametrize("case", ENDPOINT, ids=by_requirement)
async def test_endpoint(server: Serving, case: Case) -> None:
    """The endpoint does what the standard requires."""
    await ask(server, case)
    assert len(server.sessions) == (case.status == 201)


@pytest.mark.parametrize("case", SESSION, ids=by_requirement)
async def test_session(server: Serving, case: Case) -> None:
    """A session does what the standard requires."""
    async with server.http.post(f"{server.base}/whip", data=obs(), headers=SDP) as response:
        location = response.headers["Location"]
    await ask(server, case, location)
    gone = Case("", case.method, "{}", 404, case.body, case.request)
    if case.method == "DELETE":
        assert len(server.sessions) == 0
        await ask(server, gone, location)
    else:
        assert len(server.sessions) == 1
        if case.method not in ("OPTIONS", "HEAD") and case.status != 405:
            await ask(server, gone, "/whip/nobody")


BOTH_SHAPES = [
    pytest.param(shape(profile, mode), profile, id=f"{shape.__name__} {profile} {mode}")
    for shape in (obs, obs_older, gstreamer)
    for profile in ("42e01f", "42001f", "4d001f", "640c1f")
    for mode in ("0", "1")
]


@pytest.mark.parametrize(("offer", "profile"), BOTH_SHAPES)
async def test_shapes_of_offers(server: Serving, offer: str, profile: str) -> None:
    """What OBS and GStreamer offer is answered in full, with what an answer must have."""
    case = Case("", "POST", "/whip", 201, offer, SDP)
    answer = await ask(server, case)
    sections = answer.split("\r\nm=")[1:]
    description = SessionDescription.parse(answer)
    assert [media.kind for media in description.media] == re.findall(r"m=(\w+)", offer)
    (bundle,) = [group for group in description.group if group.semantic == "BUNDLE"]
    assert bundle.items == re.findall(r"a=mid:(\w+)", offer)
    for section, media in zip(sections, description.media, strict=True):
        assert media.direction == "recvonly"
        assert media.port != 0
        assert media.dtls is not None
        assert media.dtls.role in ("client", "server")
        assert media.ice_candidates_complete
        assert media.ice_candidates
        assert "\r\na=rtcp-mux\r\na=rtcp-mux-only\r\n" in section
    (video,) = [media for media in description.media if media.kind == "video"]
    codec = video.rtp.codecs[0]
    assert (codec.name, codec.parameters["profile-level-id"]) == ("H264", profile)


async def test_what_is_published_is_translated_and_steered() -> None:
    """A camera that comes by WHIP is translated; its settings are changed over HTTP."""
    async with serving(ColourEngine) as server:
        publisher = await server.publish(flat(ORANGE), "?prompt=swap")
        player = await server.play(publisher.id)
        await player.until_colour((40, 120, 200))
        for way in ("whip", "sessions"):
            url = f"{server.base}/{way}/{publisher.id}/controls"
            prompt = {"whip": "invert", "sessions": "same"}[way]
            async with server.http.patch(url, json={"prompt": prompt}) as response:
                assert (await response.json())["prompt"] == prompt
            async with server.http.get(url) as response:
                assert (await response.json())["prompt"] == prompt
            await player.until_colour({"invert": INVERTED, "same": ORANGE}[prompt])


async def test_nothing_is_sent_back() -> None:
    """Who publishes gets an answer that only receives, though it would take more."""
    async with serving(ColourEngine) as server:
        publisher = Publisher(server.http, server.base, flat(ORANGE))
        server.peers.append(publisher)
        publisher.pc.addTrack(publisher.camera)  # sendrecv
        answer = await publisher.post("/whip")
        assert "a=recvonly" in answer
        player = await server.play(publisher.id)
        await player.until_frames(5)
        assert not publisher.frames


LOAD = [
    Case("4.5: 503 says when to come again", "POST", "", 503, obs(), SDP, {"Retry-After": r"\d+"}),
    Case(
        "4.5: 307 says where to go, with the same query",
        "POST",
        "https://two.example.org",
        307,
        obs(),
        SDP,
        {"Location": r"https://two\.example\.org/whip\?prompt=swap"},
    ),
]


@pytest.mark.parametrize("case", LOAD, ids=by_requirement)
async def test_full_server_says_what_to_do(case: Case) -> None:
    """With no room one is told when to come again or, with another server, where that is."""
    config = ServerConfig(max_sessions=1, redirect_to=case.path)
    async with serving(ColourEngine, config) as server:
        await ask(server, Case("4.2", "POST", "/whip", 201, obs(), SDP))
        await ask(server, replace(case, path="/whip?prompt=swap"))


def bearer(text: str) -> dict[str, str]:
    return {**SDP, "Authorization": text}


@pytest.mark.parametrize(
    ("headers", "status", "challenge"),
    [
        (SDP, 401, 'Bearer realm="stream"'),
        (bearer("Bearer wrong"), 401, 'Bearer error="invalid_token"'),
        (bearer("Bearer"), 401, 'Bearer error="invalid_token"'),
        (bearer("Basic s3cret"), 401, 'Bearer error="invalid_token"'),
        (bearer("Bearer s3cret"), 201, None),
        (bearer("bearer s3cret"), 201, None),
    ],
)
async def test_token(headers: dict[str, str], status: int, challenge: str | None) -> None:
    """With a token set, only who sends it opens, steers and ends sessions (RFC 6750)."""
    async with serving(ColourEngine, ServerConfig(token="s3cret")) as server:
        case = Case("4.7", "POST", "/whip", status, obs(), headers)
        if challenge is not None:
            case.answer["WWW-Authenticate"] = re.escape(challenge)
        await ask(server, case)
        await ask(server, Case("not for what browsers ask", "OPTIONS", "/whip", 200))
        for path in ("/whip/x", "/sessions/x", "/whep/x/y", "/sessions/x/controls"):
            method = "PATCH" if path.endswith("controls") else "DELETE"
            wanted = 404 if status == 201 else 401
            body = "{}" if method == "PATCH" else ""
            await ask(server, Case("4.7", method, path, wanted, body, headers))


async def test_a_name_leads_to_the_newest() -> None:
    """A session is found by the name it asked for; when it comes again, the new one counts."""
    async with serving(ColourEngine) as server:
        url = f"{server.base}/whip/studio"
        async with server.http.get(url) as response:
            assert response.status == 404
        first = await server.publish(flat(ORANGE), "?name=studio&prompt=swap")
        second = await server.publish(flat(ORANGE), "?name=studio&prompt=grey")
        async with server.http.get(f"{url}/controls") as response:
            assert (await response.json())["prompt"] == "grey"
        async with server.http.delete(server.base + second.location) as response:
            assert response.status == 200
        async with server.http.get(f"{url}/controls") as response:
            assert (await response.json())["prompt"] == "swap"
        assert first.id != second.id


@pytest.mark.parametrize(
    "make",
    [
        lambda: IceServer("https://stun.example.org"),
        lambda: IceServer("stun:a> b"),
        lambda: ServerConfig(origins=("example.org",)),
        lambda: ServerConfig(origins=("https://example.org/page",)),
        lambda: ServerConfig(redirect_to="two"),
        lambda: ServerConfig(max_viewers=-1),
    ],
)
def test_impossible_config_is_refused(make: Callable[[], object]) -> None:
    """What cannot be is told when the configuration is made, with what was given."""
    with pytest.raises(ConfigRefused, match="got"):
        make()


def test_secrets_are_not_shown() -> None:
    """Neither the token nor a credential is in the text of a configuration."""
    config = ServerConfig(token="hush", ice_servers=(IceServer("turn:t", "ann", "hush"),))
    assert "hush" not in repr(config)


async def test_publisher_that_leaves_ends_its_session() -> None:
    """When the sender closes its connection, the session and its viewers end."""
    async with serving(ColourEngine) as server:
        publisher = await server.publish(flat(ORANGE))
        player = await server.play(publisher.id)
        await player.until_frames(2)
        tasks = list(server.app_tasks().values())
        await publisher.close()
        done, pending = await asyncio.wait(tasks, timeout=DEADLINE_S)
        assert (len(done), len(pending), len(server.sessions)) == (2, 0, 0)
