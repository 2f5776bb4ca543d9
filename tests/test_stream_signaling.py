"""Offers and trickled candidates, before aiortc sees them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection
from aiortc.sdp import SessionDescription
from peers import Camera, flat

from stream.errors import OfferRefused
from stream.signaling import MAX_OFFER_BYTES, check_offer, find_ufrags, parse_fragment

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"


async def make_offer(kinds: tuple[str, ...] = ("video",), channel: bool = True) -> str:
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    try:
        for kind in kinds:
            pc.addTransceiver(Camera(flat((0, 0, 0))) if kind == "video" else kind)
        if channel:
            pc.createDataChannel("control")
        await pc.setLocalDescription(await pc.createOffer())
        sdp: str = pc.localDescription.sdp
        return sdp
    finally:
        await pc.close()


def without(*words: str) -> Callable[[str], str]:
    """Take out every line that has one of some words."""
    return lambda offer: "".join(
        line for line in offer.splitlines(True) if not any(word in line for word in words)
    )


def replaced(old: str, new: str) -> Callable[[str], str]:
    def replace(offer: str) -> str:
        assert old in offer
        return offer.replace(old, new)

    return replace


def repeated(line: str, count: int) -> Callable[[str], str]:
    return lambda offer: offer + line * count


def repeat_video(offer: str) -> str:
    head, _, video = offer.partition("m=video")
    video = "m=video" + video.partition("m=application")[0]
    return head + video + video


def in_444(offer: str) -> str:
    """H264 alone, in a profile that nobody decodes here."""
    return re.sub("profile-level-id=[0-9a-f]{6}", "profile-level-id=f4001f", without("VP8")(offer))


BAD = [
    (lambda _: "", 400, "type=value"),
    (lambda _: "s=-\r\n", 400, "v=0"),
    (lambda _: "hello", 400, "type=value"),
    (lambda _: "<html></html>", 400, "type=value"),
    (lambda _: "v=0\r\n", 422, "no video"),
    (lambda _: "v=0\r\nm=video\r\n", 400, "valid SDP"),
    (lambda offer: offer + "x" * MAX_OFFER_BYTES, 413, "32768 bytes"),
    (repeated("a=x\r\n", 1200), 400, "1000 lines"),
    (repeated("a=rtcp-fb:96 nack\r\n", 500), 400, "400 lines about codecs"),
    (repeated("a=rtpmap:96 VP8/90000\r\n", 80), 400, "80 codecs"),
    (replaced("SAVPF ", "SAVPF 72 "), 400, "valid SDP: malformed"),
    (repeated("a=rtcp-fb:* nack\r\n", 9), 400, "8 kinds of feedback for all codecs"),
    (repeated("a=candidate:1 1 udp 1 192.0.2.9 9 typ host\r\n", 65), 400, "64 candidates"),
    (repeated("a=ssrc:1 cname:x\r\n", 101), 400, "100 lines about sources"),
    (repeated("m=video 9 UDP/TLS/RTP/SAVPF 96\r\n", 4), 400, "3 media sections"),
    (repeated("a=candidate:1 1 udp\r\n", 1), 400, "valid SDP"),
    (repeated("a=rtpmap:96\r\n", 1), 400, "valid SDP"),
    (repeated("a=b\x00\r\n", 1), 400, "type=value"),
    (without("ice-pwd"), 400, "ice-pwd"),
    (without("a=setup"), 400, "setup"),
    (replaced("a=mid:0", "a=mid:9"), 400, "BUNDLE names '0', which no media has"),
    (without("fingerprint"), 400, "fingerprint"),
    (without("a=mid"), 400, "mid"),
    (without("rtcp-mux"), 400, "rtcp-mux"),
    (replaced("a=setup:actpass", "a=setup:holdconn"), 400, "valid SDP"),
    (replaced("a=setup:actpass", "a=setup:" + "x" * 9000), 400, "valid SDP"),
    (without("VP8", "H264", "a=fmtp", "a=rtcp-fb"), 422, "VP8 or H264"),
    (
        in_444,
        422,
        "(42, 4d, 64), in packetization-mode 0 or 1 (got f4001f",
    ),
    (replaced("a=sendrecv", "a=recvonly"), 422, "must be sendrecv (got recvonly)"),
    (replaced("a=sendrecv", "a=inactive"), 422, "got inactive"),
    (repeat_video, 422, "1 video (got 2)"),
    (replaced("m=video", "m=text"), 422, "no video"),
    (without("sctp-port"), 400, "sctp-port from 1 to 65535 (got None)"),
    *[
        (replaced("sctp-port:5000", f"sctp-port:{port}"), 400, "sctp-port from 1 to 65535")
        for port in (0, -1, 70000)
    ],
    (replaced("sctp-port:5000", "sctp-port:x"), 400, "valid SDP"),
    (replaced("UDP/DTLS/SCTP webrtc-datachannel", "DTLS/SCTP x"), 400, "(got x)"),
    (replaced("UDP/DTLS/SCTP webrtc-datachannel", "DTLS/SCTP " + "9" * 5000), 400, "(got 999"),
    (replaced("max-message-size:262144", "max-message-size:-5"), 400, "(got -5)"),
    (replaced("max-message-size:262144", "max-message-size:100"), 400, "0, or from 16384 up"),
    (replaced("max-message-size:262144", "max-message-size:x"), 400, "valid SDP"),
]


@pytest.mark.parametrize(("spoil", "status", "word"), BAD)
async def test_bad_offer_is_refused(spoil: Callable[[str], str], status: int, word: str) -> None:
    """Each bad offer gets its status and one sentence that names what is wrong."""
    offer = spoil(await make_offer())
    started_s = time.perf_counter()
    with pytest.raises(OfferRefused) as refused:
        check_offer(offer.encode(), SDP)
    assert time.perf_counter() - started_s < 0.5
    assert (refused.value.status, word in refused.value.detail) == (status, True), refused.value
    assert len(refused.value.detail) < 200


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/json", "multipart/x"])
async def test_wrong_content_type_is_refused(content_type: str) -> None:
    """An offer comes as application/sdp."""
    with pytest.raises(OfferRefused) as refused:
        check_offer((await make_offer()).encode(), content_type)
    assert refused.value.status == 415


def test_binary_is_refused() -> None:
    """Bytes that are no text are not an offer."""
    with pytest.raises(OfferRefused) as refused:
        check_offer(b"v=0\r\n\xff\xfe", SDP)
    assert refused.value.status == 400


async def test_good_offer_passes_unchanged() -> None:
    """What aiortc offers is passed as it is, also with audio and charset."""
    offer = await make_offer(("audio", "video"))
    lines = [line for line in offer.splitlines() if line != "a=end-of-candidates"]
    assert check_offer(offer.encode(), "Application/SDP; charset=utf-8").splitlines() == lines


async def test_what_stops_aioice_is_taken_out() -> None:
    """Candidates with mDNS names and the end of candidates go, other candidates stay."""
    offer = await make_offer()
    name = "a=candidate:9 1 udp 2113937151 4d2c8a5e-1111.local 50000 typ host\r\n"
    spoiled = offer.replace("a=end-of-candidates\r\n", name + "a=end-of-candidates\r\n")
    cleaned = check_offer(spoiled.encode(), SDP)
    assert name in spoiled
    assert ".local" not in cleaned
    assert "end-of-candidates" not in cleaned
    assert cleaned.count("a=candidate:") == offer.count("a=candidate:") > 0


@pytest.mark.parametrize(
    "candidate",
    [
        "1 1 udp 1 example.com 9 typ host",
        "1 1 udp 1 999.1.1.1 9 typ host",
        "1 1 udp 1 224.0.0.1 9 typ host",
        "1 1 udp 1 192.0.2.3 0 typ host",
        "1 1 udp 1 192.0.2.3 -1 typ host",
        "1 1 udp 1 192.0.2.3 99999 typ host",
        f"1 1 udp 1 192.0.2.3 {'9' * 5000} typ host",
        "1 2 udp 1 192.0.2.3 9 typ host",
        "1 1 tcp 1 192.0.2.3 9 typ host tcptype active",
    ],
)
async def test_candidate_that_cannot_be_used_is_taken_out(candidate: str) -> None:
    """A candidate to which no datagram can be sent is skipped, in offers and in fragments."""
    line = f"a=candidate:{candidate}\r\n"
    offer = await make_offer()
    cleaned = check_offer((offer + line).encode(), SDP)
    assert line not in cleaned
    assert cleaned.count("a=candidate:") == offer.count("a=candidate:")
    assert parse_fragment(f"a=mid:0\r\n{line}".encode(), FRAGMENT).candidates == ()


async def test_missing_direction_is_sendrecv() -> None:
    """A section without a direction is sendrecv, as RFC 8866 says."""
    offer = await make_offer(("audio", "video"))
    cleaned = check_offer(without("a=sendrecv")(offer).encode(), SDP)
    description = SessionDescription.parse(cleaned)
    assert [m.direction for m in description.media[:2]] == ["sendrecv", "sendrecv"]


async def test_fragment_gives_candidates_with_their_section() -> None:
    """A trickle fragment names its ICE generation, its section and what can be used."""
    body = (
        "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n"
        "m=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"
        "a=candidate:1 1 udp 2130706431 192.0.2.1 61764 typ host\r\n"
        "a=candidate:2 1 udp 2130706431 hidden.local 61765 typ host\r\n"
        "a=end-of-candidates\r\n"
    )
    fragment = parse_fragment(body.encode(), FRAGMENT)
    assert fragment.ufrag == "EsAw"
    assert [(c.ip, c.port, c.sdpMid) for c in fragment.candidates] == [("192.0.2.1", 61764, "0")]


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ("a=candidate:1 1 udp\r\n", FRAGMENT, 400),
        ("a=candidate:1 1 udp x 192.0.2.1 9 typ host\r\n", FRAGMENT, 400),
        ("nonsense", FRAGMENT, 400),
        ("a=mid:0\r\n", SDP, 415),
        ("a=mid:0\r\n" * 4000, FRAGMENT, 413),
    ],
)
def test_bad_fragment_is_refused(body: str, content_type: str, status: int) -> None:
    """What is not a trickle fragment is refused."""
    with pytest.raises(OfferRefused) as refused:
        parse_fragment(body.encode(), content_type)
    assert refused.value.status == status


async def test_ufrags_are_those_of_the_offer() -> None:
    """The ICE generation of an offer is known by its user fragments."""
    offer = await make_offer()
    description = SessionDescription.parse(offer)
    assert find_ufrags(offer) == {media.ice.usernameFragment for media in description.media}


INSIDE = (
    "127.0.0.1",
    "127.8.9.1",
    "::1",
    "0.0.0.0",
    "::",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "fe80::1",
    "fe80::1%eth0",
    "fd00::7",
    "fec0::1",
    "224.0.0.251",
    "ff02::fb",
    "255.255.255.255",
    "240.0.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "::ffff:10.0.0.1",
    "::ffff:8.8.8.8",
    "::10.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::a00:1",
    "2002:a00:1::1",
    "2001:0:a00:1::1",
    "host.example",
    "metadata.google.internal",
    "2f1c.local",
    "0177.0.0.1",
)
OUTSIDE = ("8.8.8.8", "2a00:1450:4001::5")
NEVER = ("0.0.0.0", "::", "224.0.0.251", "ff02::fb", "255.255.255.255", "::ffff:10.0.0.1")


def candidates(addresses: tuple[str, ...]) -> str:
    lines = [
        f"a=candidate:{number} 1 udp {number} {address} 5000 typ {kind}\r\n"
        for number, address in enumerate(addresses, 1)
        for kind in ("host", "srflx raddr 0.0.0.0 rport 9")
    ]
    return "".join(lines)


@pytest.mark.parametrize("is_cleaned", [True, False])
async def test_public_server_knocks_at_no_door_inside(is_cleaned: bool) -> None:
    """Offered and trickled candidates that point inside of a network are left out, and names."""
    assert len(INSIDE) + len(OUTSIDE) <= 64
    half = len(INSIDE) // 2
    for addresses in (INSIDE[:half] + OUTSIDE, INSIDE[half:] + OUTSIDE):
        lines = candidates(addresses)
        offer = without("a=candidate")(await make_offer()).replace(
            "a=mid:0\r\n", f"a=mid:0\r\n{lines}"
        )
        kept = check_offer(offer.encode(), SDP, is_cleaned=is_cleaned, is_public=True)
        media = SessionDescription.parse(kept).media[0]
        assert {candidate.ip for candidate in media.ice_candidates} == set(OUTSIDE)
        fragment = parse_fragment(
            f"a=mid:0\r\n{lines}".encode(), FRAGMENT, is_cleaned=is_cleaned, is_public=True
        )
        assert {candidate.ip for candidate in fragment.candidates} == set(OUTSIDE)


def test_server_at_home_takes_what_is_near() -> None:
    """Elsewhere private addresses count, but not names, nor what no datagram can be sent to."""
    near = ("127.0.0.1", "10.1.2.3", "192.168.1.1", "fd00::7", "169.254.1.1", *OUTSIDE)
    body = f"a=mid:0\r\n{candidates((*near, *NEVER, 'host.example', '2f1c.local'))}"
    fragment = parse_fragment(body.encode(), FRAGMENT)
    assert {candidate.ip for candidate in fragment.candidates} == set(near)
