"""Pure: check an offer before aiortc sees it, read trickled candidates.

aiortc's parser takes seconds for a hostile 128 KiB, and its ICE agent waits one second for
each ``.local`` candidate and never connects when they are all there is; so offers are
measured, checked and cleaned here first.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from aiortc import RTCIceCandidate
from aiortc.sdp import (
    MediaDescription,
    SessionDescription,
    candidate_from_sdp,
    parse_h264_profile_level_id,
)

from stream.addresses import Address, is_inside
from stream.codecs import H264_MODES, H264_PROFILES
from stream.errors import OfferRefused, shorten

MAX_OFFER_BYTES = 32 * 1024
MAX_LINES = 1000  # Chromium's offer of audio and video has 172
MAX_CODEC_LINES = 400
# Chromium has 31, and some 20 more where the machine has codecs of its own. aiortc takes up
# to a millisecond for each, on the loop.
MAX_CODECS = 80
MAX_FEEDBACK_FOR_ALL = 8  # which counts for every codec; nobody is known to offer more than 4
MAX_CANDIDATES = 64
MAX_SOURCE_LINES = 100  # Chromium has 4 a stream; aiortc's parser compares each with all others
MAX_OF_KIND = {"video": 1, "audio": 1, "application": 1}
# What the data channel says of itself has to fit; browsers take 256 KiB and more.
MIN_MESSAGE_BYTES = 16 * 1024
CODECS = {"video": ("VP8", "H264"), "audio": ("opus",)}

_H264_PROFILES = {parse_h264_profile_level_id(kind)[0] for kind in H264_PROFILES}
_DIRECTIONS = {"a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"}
# What aiortc's parser raises on a malformed line.
_PARSE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    StopIteration,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Way:
    """What the offers of one way in or out have to be like."""

    video: tuple[str, ...]
    """The directions that the offer's video may have."""
    audio: tuple[str, ...]
    kinds: tuple[str, ...] = ("video", "audio")
    is_bundled: bool = True
    """Whether all media must go one way (RFC 9725, section 4.4.1)."""


ANY_DIRECTION = ("sendrecv", "sendonly", "recvonly", "inactive")
BOTH_WAYS = Way(("sendrecv",), ANY_DIRECTION, ("video", "audio", "application"), is_bundled=False)
INGEST = Way(("sendonly", "sendrecv"), ("sendonly", "sendrecv"))
EGRESS = Way(("recvonly", "sendrecv"), ("recvonly", "sendrecv"))


@dataclass(frozen=True, slots=True)
class Fragment:
    """Candidates that came after the offer (RFC 8840)."""

    ufrag: str | None
    """Which ICE generation they belong to."""
    candidates: tuple[RTCIceCandidate, ...]


def check_offer(
    body: bytes,
    content_type: str,
    way: Way = BOTH_WAYS,
    *,
    is_cleaned: bool = True,
    is_public: bool = False,
) -> str:
    """Return an offer that aiortc can answer.

    Args:
        body: the request's body.
        content_type: the request's.
        way: what it has to be like.
        is_cleaned: candidates that cannot be used are taken out.
        is_public: candidates that point inside of a network are taken out, and names.

    Raises:
        OfferRefused: 413 too large, 415 another type, 400 not an offer, 422 without video
            that we can exchange.
    """
    lines = _read_lines(body, content_type, "application/sdp")
    if lines[0] != "v=0":
        raise OfferRefused(400, f'an offer begins with "v=0" (got {_shown(lines[0])})')
    _measure(lines)
    kept = [line for line in lines if _is_kept(line, is_cleaned, is_public)]
    offer = _direct("\r\n".join(kept) + "\r\n")
    try:
        description = SessionDescription.parse(offer)
    except _PARSE_ERRORS as error:
        reason = shorten(str(error)) or "malformed"
        raise OfferRefused(400, f"the offer is not valid SDP: {reason}") from error
    for media in description.media:
        _check_transport(media)
        if media.kind == "application":
            _check_channel(media)
    _check_media(description.media, way)
    _check_bundle(description, way)
    return offer


def parse_fragment(
    body: bytes, content_type: str, *, is_cleaned: bool = True, is_public: bool = False
) -> Fragment:
    """Read candidates from a trickle fragment.

    Args:
        body: the request's body.
        content_type: the request's.
        is_cleaned: candidates that cannot be used are skipped.
        is_public: candidates that point inside of a network are skipped, and names.

    Raises:
        OfferRefused: 413 too large, 415 another type, 400 not a fragment.
    """
    lines = _read_lines(body, content_type, "application/trickle-ice-sdpfrag")
    _measure(lines)
    ufrag, mid = None, None
    candidates = []
    for line in lines:
        name, _, value = line.partition(":")
        if name == "a=ice-ufrag":
            ufrag = value
        elif name == "a=mid":
            mid = value
        elif name == "a=candidate" and _is_kept(line, is_cleaned, is_public):
            try:
                candidate = candidate_from_sdp(value)
            except _PARSE_ERRORS as error:
                raise OfferRefused(400, f"not a candidate: {_shown(line)}") from error
            candidate.sdpMid = mid
            candidate.sdpMLineIndex = 0 if mid is None else None
            candidates.append(candidate)
    return Fragment(ufrag, tuple(candidates))


def find_ufrags(offer: str) -> frozenset[str]:
    """Return the ICE user fragments of a cleaned offer."""
    prefix = "a=ice-ufrag:"
    return frozenset(
        line.removeprefix(prefix) for line in offer.split("\r\n") if line.startswith(prefix)
    )


def require_mux(answer: str) -> str:
    """Say in an answer that RTCP has no port of its own (RFC 9725, section 4.4.1)."""
    return answer.replace("a=rtcp-mux\r\n", "a=rtcp-mux\r\na=rtcp-mux-only\r\n")


def _read_lines(body: bytes, content_type: str, expected: str) -> list[str]:
    if content_type.partition(";")[0].strip().lower() != expected:
        raise OfferRefused(415, f"the content type must be {expected} (got {_shown(content_type)})")
    if len(body) > MAX_OFFER_BYTES:
        raise OfferRefused(
            413, f"an offer may have {MAX_OFFER_BYTES} bytes (got {len(body)} or more)"
        )
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise OfferRefused(400, "the body is not UTF-8 text") from None
    lines = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    for line in lines:
        if line[1:2] != "=" or not line.isprintable():
            raise OfferRefused(400, f'the body is not SDP: {_shown(line)} is not "type=value"')
    return lines


def _measure(lines: list[str]) -> None:
    names = Counter(line.partition(":")[0] for line in lines)
    codec_lines = names["a=rtpmap"] + names["a=fmtp"] + names["a=rtcp-fb"]
    for_all = sum(line.startswith("a=rtcp-fb:*") for line in lines)
    media_lines = sum(line.startswith("m=") for line in lines)
    for found, limit, what in (
        (len(lines), MAX_LINES, "lines"),
        (media_lines, len(MAX_OF_KIND), "media sections"),
        (codec_lines, MAX_CODEC_LINES, "lines about codecs"),
        (names["a=rtpmap"], MAX_CODECS, "codecs"),
        (for_all, MAX_FEEDBACK_FOR_ALL, "kinds of feedback for all codecs"),
        (names["a=candidate"], MAX_CANDIDATES, "candidates"),
        (names["a=ssrc"], MAX_SOURCE_LINES, "lines about sources"),
    ):
        if found > limit:
            raise OfferRefused(400, f"an offer may have {limit} {what} (got {found})")


def _is_kept(line: str, is_cleaned: bool, is_public: bool) -> bool:
    return (not is_public or _leads_outside(line)) and (not is_cleaned or _is_wanted(line))


def _leads_outside(line: str) -> bool:
    """Drop candidates by which a peer would have us knock at doors inside of our network.

    Each one is sent a few datagrams. A peer that has only those is found all the same, by the
    datagrams that it sends itself (RFC 8445, section 7.3.1.3).
    """
    fields = line.split()
    if not line.startswith("a=candidate:") or len(fields) < 8:
        return True
    try:
        return not is_inside(ipaddress.ip_address(fields[4]))
    except ValueError:
        return False


def _is_wanted(line: str) -> bool:
    """Drop what aioice must not see; a malformed candidate is left for the parser to refuse.

    That is the end of candidates, which forbids to learn of others, mDNS names, which it
    waits for, and what no datagram can be sent to, which ends its socket, or only in disguise.
    """
    if line == "a=end-of-candidates":
        return False
    fields = line.split()
    if not line.startswith("a=candidate:") or len(fields) < 8:
        return True
    component, transport, _, address, port = fields[1:6]
    try:
        is_address = _is_unicast(ipaddress.ip_address(address))
    except ValueError:
        return False
    return is_address and _is_port(port) and component == "1" and transport.lower() == "udp"


def _is_unicast(address: Address) -> bool:
    """Tell whether an address is one machine's; one of IPv4 written as IPv6 is nobody's."""
    is_disguised = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None
    is_broadcast = address.version == 4 and address.is_reserved
    return not (address.is_multicast or address.is_unspecified or is_broadcast or is_disguised)


def _check_transport(media: MediaDescription) -> None:
    if not media.ice.usernameFragment or not media.ice.password:
        raise OfferRefused(400, f"the offer's {media.kind} has no ice-ufrag or no ice-pwd")
    if media.dtls is None or not media.dtls.fingerprints:
        raise OfferRefused(400, f"the offer's {media.kind} has no setup or no fingerprint")
    if not media.rtp.muxId:
        raise OfferRefused(400, f"the offer's {media.kind} has no mid")
    if media.kind in CODECS and not media.rtcp_mux:
        raise OfferRefused(400, f"the offer's {media.kind} has no rtcp-mux")


def _check_channel(media: MediaDescription) -> None:
    """Refuse what aiortc reads but fails on when the association begins (RFC 8841)."""
    if media.profile == "DTLS/SCTP":  # as it was before the RFC
        port = str(media.fmt[0]) if media.fmt else ""
    else:
        port = str(media.sctp_port)
    if not _is_port(port):
        raise OfferRefused(
            400,
            f"the offer's data channel needs an sctp-port from 1 to 65535 (got {shorten(port)})",
        )
    if media.sctpCapabilities is None:
        return
    size_bytes = media.sctpCapabilities.maxMessageSize
    if size_bytes != 0 and size_bytes < MIN_MESSAGE_BYTES:  # 0: any size
        raise OfferRefused(
            400,
            f"the offer's data channel needs a max-message-size of 0, or from {MIN_MESSAGE_BYTES} "
            f"up (got {size_bytes})",
        )


def _check_media(sections: list[MediaDescription], way: Way) -> None:
    kinds = Counter(media.kind for media in sections)
    if not kinds["video"]:
        raise OfferRefused(422, "the offer has no video")
    for kind, count in kinds.items():
        limit = MAX_OF_KIND[kind] if kind in way.kinds else 0
        if count > limit:
            raise OfferRefused(422, f"an offer may have {limit} {kind} (got {count})")
    for media in sections:
        if media.kind not in CODECS:
            continue
        _check_codecs(media)
        allowed = way.video if media.kind == "video" else way.audio
        if media.direction not in allowed:
            raise OfferRefused(
                422,
                f"the offer's {media.kind} must be {' or '.join(allowed)} (got {media.direction})",
            )


def _check_bundle(description: SessionDescription, way: Way) -> None:
    mids = {media.rtp.muxId for media in description.media}
    bundles = [set(group.items) for group in description.group if group.semantic == "BUNDLE"]
    for mid in sorted(set().union(*bundles) - mids):
        raise OfferRefused(400, f"the offer's BUNDLE names {_shown(mid)}, which no media has")
    if way.is_bundled and len(mids) > 1 and mids not in bundles:
        raise OfferRefused(422, "the offer's media must be in one BUNDLE group")


def _check_codecs(media: MediaDescription) -> None:
    known = {name.lower() for name in CODECS[media.kind]}
    offered = dict.fromkeys(codec.name for codec in media.rtp.codecs)
    if not known.intersection(name.lower() for name in offered):
        wanted, got = " or ".join(CODECS[media.kind]), shorten(", ".join(offered)) or "none"
        raise OfferRefused(422, f"the offer's {media.kind} must have {wanted} (got {got})")
    if media.kind == "video" and "vp8" not in {name.lower() for name in offered}:
        _check_h264(media)


def _check_h264(media: MediaDescription) -> None:
    offered = [codec.parameters for codec in media.rtp.codecs if codec.name.lower() == "h264"]
    if not any(_is_known_h264(parameters) for parameters in offered):
        got = " or ".join(
            f"{parameters.get('profile-level-id')} in mode {parameters.get('packetization-mode')}"
            for parameters in offered
        )
        raise OfferRefused(
            422,
            "the offer's H264 must have a profile-level-id of baseline, main or high (42, 4d, 64), "
            f"in packetization-mode 0 or 1 (got {shorten(got)})",
        )


def _is_known_h264(parameters: Mapping[str, int | str | None]) -> bool:
    # RFC 6184, section 8.1: what is left out.
    profile_level = str(parameters.get("profile-level-id", "42e01f"))
    mode = str(parameters.get("packetization-mode", "0"))
    try:
        profile, _ = parse_h264_profile_level_id(profile_level)
    except ValueError:
        return False
    return profile in _H264_PROFILES and mode in H264_MODES


def _direct(offer: str) -> str:
    """Write out the direction of a section that has none (RFC 8866, section 6.7)."""
    head, *sections = offer.removesuffix("\r\n").split("\r\nm=")
    of_all = next((line for line in head.split("\r\n") if line in _DIRECTIONS), "a=sendrecv")
    for index, section in enumerate(sections):
        kind = section.partition(" ")[0]
        if kind in CODECS and not _DIRECTIONS.intersection(section.split("\r\n")):
            sections[index] = f"{section}\r\n{of_all}"
    return "\r\nm=".join([head, *sections]) + "\r\n"


def _is_port(text: str) -> bool:
    # Python reads no number of more than 4300 digits.
    return text.isdecimal() and len(text) <= 5 and 0 < int(text) < 65536


def _shown(text: str) -> str:
    return shorten(ascii(text), 60)
