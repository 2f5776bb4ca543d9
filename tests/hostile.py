"""What strangers may send: generated offers, fragments, messages and prompts.

One strategy serves the suite and the fuzzer (fuzz.py) alike. They begin with something real and
spoil it, since what is wrong everywhere is refused at the first line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import offers as of_programs
from hypothesis import strategies as st

from stream.signaling import MAX_OFFER_BYTES

# What aiortc itself offers, without its addresses: as a page of this server does.
_OWN = """v=0
o=- 3973134522 3973134522 IN IP4 0.0.0.0
s=-
t=0 0
a=group:BUNDLE 0 1 2
a=msid-semantic:WMS *
m=audio 9 UDP/TLS/RTP/SAVPF 96 0
c=IN IP4 0.0.0.0
a=recvonly
a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid
a=mid:0
a=rtcp:9 IN IP4 0.0.0.0
a=rtcp-mux
a=ssrc:1641203 cname:a
a=rtpmap:96 opus/48000/2
a=rtpmap:0 PCMU/8000
a=candidate:1 1 udp 2130706431 127.0.0.1 40000 typ host
a=ice-ufrag:EsAw
a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1
a=fingerprint:sha-256 FINGERPRINT
a=setup:actpass
m=video 9 UDP/TLS/RTP/SAVPF 97 98 99 100
c=IN IP4 0.0.0.0
a=sendrecv
a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
a=mid:1
a=msid:s t
a=rtcp:9 IN IP4 0.0.0.0
a=rtcp-mux
a=ssrc-group:FID 71 72
a=ssrc:71 cname:a
a=ssrc:72 cname:a
a=rtpmap:97 VP8/90000
a=rtcp-fb:97 nack
a=rtcp-fb:97 nack pli
a=rtcp-fb:97 goog-remb
a=rtpmap:98 rtx/90000
a=fmtp:98 apt=97
a=rtpmap:99 H264/90000
a=rtcp-fb:99 nack
a=fmtp:99 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f
a=rtpmap:100 rtx/90000
a=fmtp:100 apt=99
a=candidate:1 1 udp 2130706431 127.0.0.1 40000 typ host
a=end-of-candidates
a=ice-ufrag:EsAw
a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1
a=fingerprint:sha-256 FINGERPRINT
a=setup:actpass
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=mid:2
a=sctp-port:5000
a=max-message-size:262144
a=ice-ufrag:EsAw
a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1
a=fingerprint:sha-256 FINGERPRINT
a=setup:actpass
"""
OFFERS = (
    _OWN.replace("FINGERPRINT", of_programs.FINGERPRINT).replace("\n", "\r\n"),
    of_programs.player(),
    of_programs.obs(),
    of_programs.gstreamer(),
)

Spoil = Callable[[list[str]], list[str]]
"""Changes the lines of something."""

_ANY_LINES = sorted({line for offer in OFFERS for line in offer.splitlines()})
_ATTRIBUTES = sorted({line[2:].partition(":")[0] for line in _ANY_LINES if line[:2] == "a="})
_NUMBERS = st.sampled_from(
    [
        "",
        "-1",
        "0",
        "1",
        "65536",
        str(2**31),
        str(2**63),
        "9" * 400,
        "9" * 5000,
        "1e9",
        "0x1",
        "٣",
        "nan",
    ]
)
_WORDS = st.one_of(
    _NUMBERS,
    st.sampled_from(["*", "-", "a=", ":", "/", "//", "=", ";", " ", "apt=97", "VP8/0", "H264/x/y"]),
    st.text(max_size=12),
)
_TOKEN = re.compile(r"[^\s:/;=]+")


@st.composite
def _one_spoil(draw: st.DrawFn) -> Spoil:
    """Take a line out, repeat it, add one, or put something else for a part of one."""
    at = draw(st.integers(0, 200))
    kind = draw(st.sampled_from(["drop", "repeat", "insert", "token", "cut", "move"]))
    if kind == "drop":
        return lambda lines: lines[:at] + lines[at + 1 :]
    if kind == "repeat":
        times = draw(st.integers(1, 1100))
        return lambda lines: lines[:at] + lines[at : at + 1] * times + lines[at:]
    if kind == "insert":
        line = draw(
            st.one_of(
                st.sampled_from(_ANY_LINES),
                st.builds("a={}:{}".format, st.sampled_from(_ATTRIBUTES), _WORDS),
                st.builds("{}={}".format, st.sampled_from("vosicbtramk"), _WORDS),
                st.text(max_size=40),
            )
        )
        return lambda lines: [*lines[:at], line, *lines[at:]]
    if kind == "cut":
        end = draw(st.integers(0, 60))
        return lambda lines: [line[:end] if i == at else line for i, line in enumerate(lines)]
    if kind == "move":
        to = draw(st.integers(0, 200))
        return lambda lines: [*lines[:at], *lines[at + 1 : to], *lines[at : at + 1], *lines[to:]]
    word, which = draw(_WORDS), draw(st.integers(0, 8))
    return lambda lines: [
        _put(line, which, word) if i == at else line for i, line in enumerate(lines)
    ]


def _put(line: str, which: int, word: str) -> str:
    """Put a word in the place of one of a line's parts."""
    parts = list(_TOKEN.finditer(line))
    if not parts:
        return line + word
    part = parts[which % len(parts)]
    return line[: part.start()] + word + line[part.end() :]


@st.composite
def offers(draw: st.DrawFn, most: int = 5) -> bytes:
    """Return an offer with up to ``most`` things wrong."""
    lines = draw(st.sampled_from(OFFERS)).splitlines()
    for spoil in draw(st.lists(_one_spoil(), max_size=most)):
        lines = spoil(lines)[:4000]
    end = draw(st.sampled_from(["\r\n", "\n"]))
    body = end.join([*lines, ""]).encode(errors="surrogatepass")
    tail = draw(st.one_of(st.just(b""), st.binary(max_size=4)))
    return (body + tail)[: 2 * MAX_OFFER_BYTES]


@st.composite
def fragments(draw: st.DrawFn) -> bytes:
    """Return a trickle fragment, more or less."""
    candidate = "a=candidate:1 1 udp 2130706431 127.0.0.1 9 typ host"
    lines = ["a=ice-ufrag:EsAw", "a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1", "a=mid:1", candidate]
    lines += [candidate] * draw(st.integers(0, 70))
    lines += ["a=candidate:2 1 udp 1 fe80::1%eth0 9 typ relay raddr 1.2.3.4 rport 0"]
    lines += ["a=end-of-candidates"]
    for spoil in draw(st.lists(_one_spoil(), max_size=4)):
        lines = spoil(lines)[:4000]
    return "\r\n".join([*lines, ""]).encode(errors="surrogatepass")


SETTINGS = ("prompt", "strength", "seed", "stability", "transition_s", "bypass", "marks")
_JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.just("x" * 2000),
        st.just(10**300),
    ),
    lambda values: st.one_of(
        st.lists(values, max_size=4), st.dictionaries(st.text(max_size=8), values, max_size=4)
    ),
    max_leaves=12,
)


def changes() -> st.SearchStrategy[object]:
    """Return settings that may be right, wrong or none at all."""
    name = st.one_of(st.sampled_from(SETTINGS), st.text(max_size=12))
    value = st.one_of(_JSON, prompts(), st.floats(0, 1), st.booleans())
    return st.one_of(_JSON, st.dictionaries(name, value, max_size=5))


def messages() -> st.SearchStrategy[str | bytes]:
    """Return what a page may say on its control channel, or another program."""
    told = st.one_of(
        st.fixed_dictionaries({"id": st.one_of(st.integers(), _JSON), "set": changes()}), _JSON
    ).map(json.dumps)
    nested = st.integers(1, 8000).map(lambda depth: "[" * depth)
    spoiled = st.tuples(told, st.integers(0, 60)).map(lambda pair: pair[0][: pair[1]])
    return st.one_of(told, spoiled, nested, st.text(max_size=60), st.binary(max_size=60))


def queries() -> st.SearchStrategy[dict[str, str]]:
    """Return the query of an address."""
    name = st.one_of(st.sampled_from(SETTINGS), st.text(max_size=12))
    value = st.one_of(_NUMBERS, st.text(max_size=40), st.floats().map(repr), prompts())
    return st.dictionaries(name, value, max_size=5)


def prompts() -> st.SearchStrategy[str]:
    """Return words: styles, blends of them, and what looks like that."""
    name = st.one_of(
        st.sampled_from(["invert", "ink-wash", "van gogh", "STAINED  glass", ""]),
        st.text(max_size=16),
    )
    weight = st.one_of(_NUMBERS, st.floats().map(repr), st.just("0.5"))
    part = st.one_of(name, st.builds("{}:{}".format, name, weight))
    joined = st.lists(part, min_size=1, max_size=12).map(" + ".join)
    long = st.builds(
        lambda text, times: text * times, st.text(min_size=1, max_size=6), st.integers(1, 400)
    )
    return st.one_of(joined, long, st.text(max_size=60))
