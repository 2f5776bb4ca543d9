"""Offers of programs that are not here, in the shape in which these make them."""

from __future__ import annotations

FINGERPRINT = ":".join(["4E"] * 32)

# OBS Studio 32.2.2 with libdatachannel 0.24.5, as it was received; ids and secrets are others.
# The transport is repeated in each section; no candidates, everything sendonly. Whatever the
# profile in which it encodes, it says 42e01f.
_OBS = f"""v=0
o=rtc 893057741 0 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=group:LS 0 1
a=msid-semantic:WMS *
a=ice-options:ice2,trickle
a=fingerprint:sha-256 {FINGERPRINT}
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=mid:0
a=sendonly
a=ssrc:1371 cname:obs
a=ssrc:1371 msid:obs obs-audio
a=msid:obs obs-audio
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;maxaveragebitrate=96000;stereo=1;sprop-stereo=1;useinbandfec=1
a=setup:actpass
a=ice-ufrag:nxcM
a=ice-pwd:ezjAjgSSLLvbRhUA1zc6Se
m=video 9 UDP/TLS/RTP/SAVPF 96
c=IN IP4 0.0.0.0
a=mid:1
a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:2 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id
a=sendonly
a=ssrc:1372 cname:obs
a=ssrc:1372 msid:obs obs-video
a=msid:obs obs-video
a=rtcp-mux
a=rtpmap:96 H264/90000
a=rtcp-fb:96 nack
a=rtcp-fb:96 nack pli
a=rtcp-fb:96 goog-remb
a=fmtp:96 {{h264}}
a=setup:actpass
a=ice-ufrag:nxcM
a=ice-pwd:ezjAjgSSLLvbRhUA1zc6Se
"""

# GStreamer's whipclientsink: candidates gathered, transport repeated in each section, RTX.
_GSTREAMER = f"""v=0
o=- 6358204829498357263 0 IN IP4 0.0.0.0
s=-
t=0 0
a=ice-options:trickle
a=group:BUNDLE video0 audio1
m=video 9 UDP/TLS/RTP/SAVPF 96 97
c=IN IP4 0.0.0.0
a=setup:actpass
a=ice-ufrag:h5hBVOqkoLrcHrYFrQ2zh5nFgHb0Zz7R
a=ice-pwd:GbXjs1QbUo6MgOSSNmQGmv5aS02mQXgL
a=rtcp-mux
a=rtcp-rsize
a=sendonly
a=rtpmap:96 H264/90000
a=rtcp-fb:96 nack
a=rtcp-fb:96 nack pli
a=rtcp-fb:96 ccm fir
a=rtcp-fb:96 transport-cc
a=framerate:30
a=fmtp:96 {{h264}}
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
a=ssrc-group:FID 2736603989 1099183741
a=ssrc:2736603989 msid:user784@host-7732 webrtctransceiver0
a=ssrc:2736603989 cname:user784@host-7732
a=ssrc:1099183741 msid:user784@host-7732 webrtctransceiver0
a=ssrc:1099183741 cname:user784@host-7732
a=mid:video0
a=fingerprint:sha-256 {FINGERPRINT}
a=rtcp-mux-only
a=candidate:1 1 UDP 2015363327 192.0.2.17 54257 typ host
a=candidate:2 1 TCP 1015021823 192.0.2.17 9 typ host tcptype active
a=candidate:3 1 TCP 1010827519 192.0.2.17 56566 typ host tcptype passive
a=end-of-candidates
m=audio 0 UDP/TLS/RTP/SAVPF 98
c=IN IP4 0.0.0.0
a=setup:actpass
a=ice-ufrag:h5hBVOqkoLrcHrYFrQ2zh5nFgHb0Zz7R
a=ice-pwd:GbXjs1QbUo6MgOSSNmQGmv5aS02mQXgL
a=bundle-only
a=rtcp-mux
a=rtcp-rsize
a=sendonly
a=rtpmap:98 OPUS/48000/2
a=rtcp-fb:98 transport-cc
a=fmtp:98 sprop-maxcapturerate=48000;sprop-stereo=1
a=ssrc:3071812 msid:user784@host-7732 webrtctransceiver1
a=ssrc:3071812 cname:user784@host-7732
a=mid:audio1
a=fingerprint:sha-256 {FINGERPRINT}
a=rtcp-mux-only
"""


# A browser that watches: one transport, its own candidate hidden behind a name.
_PLAYER = f"""v=0
o=- 4611731400430051336 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=extmap-allow-mixed
a=msid-semantic: WMS
m=video 9 UDP/TLS/RTP/SAVPF 96 97 103 104
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=candidate:1 1 udp 2113937151 0b6b7cf8-7e0d-4b5c-9a3a-5bd2a5ce3f1e.local 50504 typ host
a=ice-ufrag:nxcM
a=ice-pwd:ezjAjgSSLLvbRhUA1zc6Se
a=ice-options:trickle
a=fingerprint:sha-256 {FINGERPRINT}
a=setup:actpass
a=mid:0
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:6 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay
a=recvonly
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:96 VP8/90000
a=rtcp-fb:96 goog-remb
a=rtcp-fb:96 nack
a=rtcp-fb:96 nack pli
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
a=rtpmap:103 H264/90000
a=rtcp-fb:103 goog-remb
a=rtcp-fb:103 nack
a=rtcp-fb:103 nack pli
a=fmtp:103 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f
a=rtpmap:104 rtx/90000
a=fmtp:104 apt=103
m=audio 9 UDP/TLS/RTP/SAVPF 111 9 0
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=ice-ufrag:nxcM
a=ice-pwd:ezjAjgSSLLvbRhUA1zc6Se
a=ice-options:trickle
a=fingerprint:sha-256 {FINGERPRINT}
a=setup:actpass
a=mid:1
a=recvonly
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
"""


def player() -> str:
    """Return what a browser offers that only watches."""
    return _crlf(_PLAYER)


def obs(profile: str = "42e01f", mode: str = "1") -> str:
    """Return what OBS offers."""
    h264 = f"profile-level-id={profile};packetization-mode={mode};level-asymmetry-allowed=1"
    return _crlf(_OBS.format(h264=h264))


def obs_older(profile: str = "42e01f", mode: str = "1") -> str:
    """Return it as libdatachannel up to 0.21 writes it: one transport, at session level."""
    offer = obs(profile, mode)
    for line in ("a=setup:actpass", "a=ice-ufrag:nxcM", "a=ice-pwd:ezjAjgSSLLvbRhUA1zc6Se"):
        offer = offer.replace(f"{line}\r\n", "")
        offer = offer.replace("a=ice-options:", f"{line}\r\na=ice-options:")
    return offer


def gstreamer(profile: str = "42e01f", mode: str = "1") -> str:
    """Return what GStreamer offers."""
    return _crlf(
        _GSTREAMER.format(
            h264=f"packetization-mode={mode};profile-level-id={profile};level-asymmetry-allowed=1"
        )
    )


def _crlf(text: str) -> str:
    return text.replace("\n", "\r\n")
