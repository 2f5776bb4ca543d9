"""Our corrections to aiortc's and aioice's receive and send path: installed, or not.

Each correction lives in a module of its own with its reason and its test; here they are put
in the place of the private parts they correct. Before that these parts are checked to look
as they did when the corrections were written; if they do not, nothing is installed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial, partialmethod
from typing import Any

import aioice.ice
import aiortc.codecs
import aiortc.rtcdtlstransport
import aiortc.rtcicetransport
import aiortc.rtcpeerconnection
import aiortc.rtcrtpreceiver
import aiortc.rtcrtpsender
import aiortc.rtp
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCRtpSender
from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from stream import ciphers, codecs, playout
from stream.bitrate import DEFAULT_CAP_BPS
from stream.codecs import VideoEncoder
from stream.corrections import Corrections
from stream.decoders import make_decoder
from stream.encoders import probe_h264
from stream.expectations import find_surprises
from stream.gathering import PortRange, UdpPorts, gather
from stream.icefilter import FilteredConnection, FilteredProtocol
from stream.messages import BoundedSctpTransport
from stream.receiver import ReceiveCounters, Receiver, RemoteTrack
from stream.sender import Sender
from stream.stamps import ReceivedFrame, SentFrame

__all__ = [
    "Corrections",
    "can_share",
    "cleans_offers",
    "count_beneath",
    "count_bytes",
    "count_untaken",
    "install",
    "installed",
    "last_heard_s",
    "make_video_encoder",
    "on_flood",
    "on_sent",
    "received",
    "shape_answer",
    "share",
]

logger = logging.getLogger(__name__)

_OTHERS = ("nacks_received", "key_frames_wanted", "refused_datagrams")

# What is in force, and what takes it out again.
_current = Corrections.none()
_cap_bps = DEFAULT_CAP_BPS
_udp_ports: PortRange | None = None
_undo = ExitStack()


def install(
    corrections: Corrections | None = None,
    max_bitrate_bps: int = DEFAULT_CAP_BPS,
    udp_ports: PortRange | None = None,
) -> Corrections:
    """Put the corrections in force for every peer connection made from now on.

    Calling it again replaces what was in force. A server has them :func:`installed`.

    Args:
        corrections: which ones; None: all.
        max_bitrate_bps: no video gets more, whatever its size.
        udp_ports: where sockets are bound; None: anywhere.

    Returns:
        What is in force now: nothing, after a warning, if aiortc or aioice surprise.
    """
    global _current, _cap_bps, _udp_ports  # noqa: PLW0603 - as global as what it corrects
    wanted = Corrections() if corrections is None else corrections
    _undo.close()
    _current = Corrections.none()
    surprises = find_surprises()
    if surprises and wanted != _current:
        logger.warning("aiortc stays as it is, without any correction: %s", "; ".join(surprises))
        return _current
    _put_in_place(wanted, max_bitrate_bps, udp_ports)
    _current, _cap_bps, _udp_ports = wanted, max_bitrate_bps, udp_ports
    return wanted


@contextmanager
def installed(
    corrections: Corrections | None = None,
    max_bitrate_bps: int = DEFAULT_CAP_BPS,
    udp_ports: PortRange | None = None,
) -> Iterator[Corrections]:
    """Have corrections in force within a block, and what was before after it."""
    before = _current, _cap_bps, _udp_ports
    try:
        yield install(corrections, max_bitrate_bps, udp_ports)
    finally:
        install(*before)


def received(track: MediaStreamTrack, pts: int | None) -> ReceivedFrame | None:
    """Return when a frame of a remote track came in; None: not known."""
    frames = getattr(track, "received", None)
    return frames.get(pts) if frames is not None else None


def count_beneath(peer: RTCPeerConnection) -> dict[str, int]:
    """Return what happened to a peer's packets so far, by event.

    Returns:
        The sums of :class:`~stream.receiver.ReceiveCounters`, of what the peer asked for
        again, and ``refused_datagrams``; 0 where the correction that counts is not installed.
    """
    counts: Counter[str] = Counter({**asdict(ReceiveCounters()), **dict.fromkeys(_OTHERS, 0)})
    for transceiver in peer.getTransceivers():
        if isinstance(transceiver.receiver, Receiver):
            counts.update(asdict(transceiver.receiver.counters))
        if isinstance(transceiver.sender, Sender):
            counts["nacks_received"] += transceiver.sender.nacks_received
            counts["key_frames_wanted"] += transceiver.sender.key_frames_wanted
    for connection in _connections(peer):
        counts["refused_datagrams"] += getattr(connection, "refused_datagrams", 0)
    return dict(counts)


def count_bytes(peer: RTCPeerConnection) -> tuple[int, int]:
    """Return how many bytes a peer has sent, and was sent, so far, control included."""
    transports = {each.receiver.transport for each in peer.getTransceivers()} - {None}
    received_bytes = sum(getattr(each, "_RTCDtlsTransport__rx_bytes", 0) for each in transports)
    sent_bytes = sum(getattr(each, "_RTCDtlsTransport__tx_bytes", 0) for each in transports)
    return received_bytes, sent_bytes


def on_flood(peer: RTCPeerConnection, callback: Callable[[], None]) -> None:
    """Have ``callback`` called, on the loop, when a peer sends a message that does not end.

    Without the correction ``bounded_queues`` it is never called.
    """
    if isinstance(peer.sctp, BoundedSctpTransport):
        peer.sctp.on_flood = callback


def last_heard_s(peer: RTCPeerConnection) -> float | None:
    """Return when anything came from a peer, by ``time.perf_counter()``; None: not known.

    It is known with the correction ``address_filter``, after the first datagram.
    """
    heard_s = (getattr(connection, "heard_s", None) for connection in _connections(peer))
    return max((time_s for time_s in heard_s if time_s is not None), default=None)


def _connections(peer: RTCPeerConnection) -> set[Any]:
    receivers = (transceiver.receiver for transceiver in peer.getTransceivers())
    return {r.transport.transport._connection for r in receivers if r.transport is not None}


def count_untaken(track: MediaStreamTrack | None) -> int:
    """Return how many frames of a remote track were replaced before anyone took them."""
    return track.dropped if isinstance(track, RemoteTrack) else 0


def on_sent(sender: RTCRtpSender, callback: Callable[[SentFrame], None]) -> None:
    """Have ``callback`` called, on the loop, after the last packet of each video frame.

    Without the correction ``stamps`` it is never called.
    """
    if isinstance(sender, Sender):
        sender.on_sent = callback


def can_share() -> bool:
    """Tell whether one encoder can serve several senders: it takes our encoders and senders."""
    return _current.encoders and _current.stamps


def cleans_offers() -> bool:
    """Tell whether candidates that cannot be used are to be taken out of what peers send."""
    return _current.clean_offers


def make_video_encoder(codec: RTCRtpCodecParameters) -> VideoEncoder:
    """Return a new encoder as :func:`install` was told; :func:`can_share` comes first."""
    encoder = aiortc.rtcrtpsender.get_encoder(codec)
    assert isinstance(encoder, VideoEncoder), "can_share() says so"
    return encoder


def share(sender: RTCRtpSender, encoder: VideoEncoder, want_key_frame: Callable[[], None]) -> None:
    """Let a sender take encoded pictures from its track; :func:`can_share` comes first.

    Args:
        sender: its track gives packets.
        encoder: cuts them, and learns what the network carries.
        want_key_frame: called on the loop when the receiver asks for one.
    """
    assert isinstance(sender, Sender), "can_share() says so"
    sender.take_encoded(encoder, want_key_frame)


def shape_answer(sdp: str, start_bitrate_bps: int) -> str:
    """Tell a browser in the answer with which bit rate to begin.

    It begins with 300 kb/s otherwise, and while aiortc's estimate follows what is sent, a
    1280x720 camera stays at 640x360.

    Args:
        sdp: the answer.
        start_bitrate_bps: a promise rather than a measurement; 2.5 Mb/s does for 1280x720.

    Returns:
        The answer with ``x-google-start-bitrate`` at every video codec; unchanged without
        the correction ``start_bitrate``.
    """
    if not _current.start_bitrate:
        return sdp
    head, *sections = sdp.split("\r\nm=")
    shaped = [
        _add_start_bitrate(section, start_bitrate_bps) if section.startswith("video ") else section
        for section in sections
    ]
    return "\r\nm=".join([head, *shaped])


def _add_start_bitrate(section: str, bitrate_bps: int) -> str:
    lines = section.split("\r\n")
    parameter = f"x-google-start-bitrate={bitrate_bps // 1000}"
    told = {_payload_type(line) for line in lines if line.startswith("a=fmtp:")}
    codecs_ = {
        _payload_type(line)
        for line in lines
        if line.startswith("a=rtpmap:") and " rtx/" not in line
    }
    # One pass: an offer may have hundreds of lines, and this is done on the loop.
    shaped = []
    for line in lines:
        is_codec = _payload_type(line) in codecs_
        shaped.append(f"{line};{parameter}" if is_codec and line.startswith("a=fmtp:") else line)
        if is_codec and line.startswith("a=rtpmap:") and _payload_type(line) not in told:
            shaped.append(f"a=fmtp:{_payload_type(line)} {parameter}")
    return "\r\n".join(shaped)


def _payload_type(line: str) -> str:
    """Return the payload type of an ``a=rtpmap`` or ``a=fmtp``."""
    return line.partition(":")[2].partition(" ")[0]


def _put_in_place(
    corrections: Corrections, max_bitrate_bps: int, udp_ports: PortRange | None
) -> None:
    connection = aiortc.rtcpeerconnection
    ours = (corrections.jitter_buffer, corrections.feedback, corrections.bounded_queues)
    if any(ours) or corrections.sound:
        _replace(connection, "RTCRtpReceiver", partial(Receiver, corrections=corrections))
    if corrections.bounded_queues:
        _replace(connection, "RTCSctpTransport", BoundedSctpTransport)
    if corrections.bounded_queues or corrections.stamps or corrections.sound:
        _replace(connection, "RemoteStreamTrack", partial(RemoteTrack, corrections=corrections))
    if corrections.stamps:
        _replace(connection, "RTCRtpSender", partial(Sender, is_sparing=corrections.feedback))
    if corrections.playout_delay:
        _replace(aiortc.rtp, "HeaderExtensionsMap", playout.PlayoutDelayMap)
        _append(aiortc.codecs.HEADER_EXTENSIONS["video"], [playout.OFFERED])
    if corrections.address_filter:
        _replace(aiortc.rtcicetransport, "Connection", FilteredConnection)
        _replace(aioice.ice, "StunProtocol", FilteredProtocol)
    if corrections.gathering:
        relay = aioice.ice.Connection.get_component_candidates
        gathering = partialmethod(gather, ports=UdpPorts(udp_ports), relay=relay)
        _replace(aioice.ice.Connection, "get_component_candidates", gathering)
    if corrections.ciphers:
        certificate = aiortc.rtcdtlstransport.RTCCertificate
        _replace(certificate, "_create_ssl_context", ciphers.make_context)
    if corrections.h264_profiles:
        _append(aiortc.codecs.CODECS["video"], codecs.more_h264_codecs())
    if corrections.decoder_limit:
        _replace(aiortc.rtcrtpreceiver, "get_decoder", make_decoder)
    if corrections.encoders:
        choice = probe_h264()
        logger.info("H264 is encoded by %s: %s", choice.name, choice.reason)
        factory = partial(codecs.make_encoder, cap_bps=max_bitrate_bps, h264=choice.name)
        _replace(aiortc.rtcrtpsender, "get_encoder", factory)


def _replace(module: Any, name: str, value: object) -> None:
    _undo.callback(setattr, module, name, getattr(module, name))
    setattr(module, name, value)


def _append(items: list[Any], more: list[Any]) -> None:
    def take_out() -> None:
        for item in more:
            items.remove(item)

    items.extend(more)
    _undo.callback(take_out)
