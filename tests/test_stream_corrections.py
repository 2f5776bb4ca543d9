"""Each correction to aiortc has a switch: without it, aiortc behaves as it always did.

What each one does in detail is shown by the tests of its own module.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiortc.rtcrtpreceiver
import aiortc.rtcrtpsender
import av
import pytest
from aiortc import RTCCertificate, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import OperationError
from aiortc.mediastreams import AudioStreamTrack
from aiortc.rtcdtlstransport import generate_certificate
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from browsers import PAGE_DEADLINE_MS, chromium
from cryptography.hazmat.primitives.asymmetric import rsa
from engines import ColourEngine
from key_frames import key_frame
from offers import obs
from peers import serving
from rtp_peers import Network, NumberedTrack, connect
from test_stream_codecs import H264_CODEC, frame_at, is_key
from test_stream_gathering import find_free_range, gathered, ports_of
from test_stream_rtp import ANSWER, LoseOnce
from test_stream_signaling import SDP, make_offer

from stream import rtp
from stream.corrections import Corrections
from stream.decoders import OversizedFrame
from stream.jitterbuffer import EncodedFrame
from stream.playout import URI

Probe = Callable[[], Awaitable[bool]]
"""Tells whether something goes as the correction wants it; False: as in stock aiortc."""

STRANGER = ("192.0.2.7", 4000)
HANDSHAKE = b"\x16\xfe\xfd" + bytes(40)
PROBES: dict[str, Probe] = {}


def probe(function: Probe) -> Probe:
    PROBES[function.__name__.replace("_", "-")] = function
    return function


@probe
async def jitter_buffer() -> bool:
    """A frame is decoded before the next one is sent."""
    async with connect(source=NumberedTrack(rate_hz=5)) as pair:
        await pair.receive(4)
        made_s = pair.source.made_s
        return any(a.at_s < made_s.get(a.number + 1, 0.0) for a in pair.arrivals)


@probe
async def decoder_limit() -> bool:
    """A frame that is too large is not decoded, but told of."""
    codec = RTCRtpCodecParameters("video/H264", 90000, payloadType=96)
    data = key_frame("h264-4112x2320")
    (frame,) = aiortc.rtcrtpreceiver.get_decoder(codec).decode(EncodedFrame(data, 0, True))
    assert (frame.width, frame.height) == (4112, 2320)
    return isinstance(frame, OversizedFrame)


@probe
async def feedback() -> bool:
    """A packet whose retransmission is lost is asked for a second time."""
    loss = LoseOnce(60, retransmissions=1)
    asked = 0

    def lose(packet: Any, is_retransmission: bool) -> bool:
        nonlocal asked
        asked += is_retransmission
        return loss(packet, is_retransmission)

    async with connect(network=Network(lose=lose), source=NumberedTrack(640, 480)) as pair:
        await pair.source.reach(30)
        assert loss.lost is not None
        return asked > 1


@probe
async def bounded_queues() -> bool:
    """Of the frames that nobody takes, one waits."""
    async with connect() as pair:
        await pair.receive(1)
        await pair.source.reach(15)
        return bool(pair.track._queue.qsize() <= 1)


@probe
async def sound() -> bool:
    """Sound comes as packets, not decoded."""
    configuration = RTCConfiguration(iceServers=[])
    here, there = RTCPeerConnection(configuration), RTCPeerConnection(configuration)
    try:
        here.addTrack(AudioStreamTrack())
        await here.setLocalDescription(await here.createOffer())
        await there.setRemoteDescription(here.localDescription)
        await there.setLocalDescription(await there.createAnswer())
        await here.setRemoteDescription(there.localDescription)
        async with asyncio.timeout(10):
            item = await there.getReceivers()[0].track.recv()
        return isinstance(item, av.Packet)
    finally:
        await here.close()
        await there.close()


@probe
async def playout_delay() -> bool:
    """The answer takes up the header extension that browsers offer."""
    return URI in await answer_to(obs().replace("a=sendonly", f"a=extmap:6 {URI}\na=sendonly"))


@probe
async def start_bitrate() -> bool:
    """The answer names a bit rate to begin with."""
    return "x-google-start-bitrate=2500" in rtp.shape_answer(ANSWER, 2_500_000)


@probe
async def clean_offers() -> bool:
    """An offer that says that it has no more candidates can be given more all the same."""
    offer = await make_offer()
    async with serving(ColourEngine) as server:
        body = offer if "end-of-candidates" in offer else offer + "a=end-of-candidates\r\n"
        async with server.http.post(
            f"{server.base}/sessions", data=body, headers={"Content-Type": SDP}
        ) as response:
            assert response.status == 201, await response.text()
            session = server.sessions.camera(response.headers["Location"].rpartition("/")[2])
        (transceiver,) = session._peer_connection.getTransceivers()
        connection = transceiver.receiver.transport.transport._connection
        assert connection.remote_candidates
        return not connection._remote_candidates_end


@probe
async def address_filter() -> bool:
    """A stranger's datagram is dropped."""
    async with connect() as pair:
        await pair.receive(1)
        connection = pair.receiver.transport.transport._connection
        received: list[bytes] = []
        connection.data_received = lambda data, component: received.append(data)
        protocol = next(iter(connection._nominated.values())).protocol
        protocol.datagram_received(HANDSHAKE, STRANGER)
        return HANDSHAKE not in received


@probe
async def gathering() -> bool:
    """A socket is bound in the range."""
    range_ = find_free_range(4)
    with rtp.installed(rtp._current, udp_ports=range_):
        async with gathered() as connection:
            return ports_of(connection) <= set(range(range_.first, range_.last + 1))


@probe
async def encoders() -> bool:
    """An estimate that wobbles costs no key frame."""
    encoder = aiortc.rtcrtpsender.get_encoder(H264_CODEC)
    keys = 0
    for index in range(6):
        encoder.target_bitrate = 600_000 + index % 2 * 400_000
        keys += is_key(H264_CODEC, encoder.encode(frame_at(index, 64, 64))[0])
    return keys == 1


@probe
async def h264_profiles() -> bool:
    """A high profile is negotiated."""
    try:
        await answer_to(obs("640c1f"))
    except OperationError:
        return False
    return True


@probe
async def ciphers() -> bool:
    """A peer whose certificate has an RSA key, as GStreamer's have, connects."""
    configuration = RTCConfiguration(iceServers=[])
    here, there = RTCPeerConnection(configuration), RTCPeerConnection(configuration)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    certificate = RTCCertificate(key, generate_certificate(key))
    here._RTCPeerConnection__certificates[:] = [certificate]
    ended = asyncio.Event()

    @there.on("connectionstatechange")
    def look() -> None:
        if there.connectionState in ("connected", "failed", "closed"):
            ended.set()

    try:
        here.createDataChannel("any")
        await here.setLocalDescription(await here.createOffer())
        await there.setRemoteDescription(here.localDescription)
        await there.setLocalDescription(await there.createAnswer())
        await here.setRemoteDescription(there.localDescription)
        async with asyncio.timeout(10):
            await ended.wait()
        return bool(there.connectionState == "connected")
    finally:
        await here.close()
        await there.close()


@probe
async def stamps() -> bool:
    """The time at which a frame came in is known."""
    async with connect() as pair:
        await pair.receive(2)
        return rtp.received(pair.track, pair.arrivals[-1].pts) is not None


async def answer_to(offer: str) -> str:
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    try:
        await pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await pc.setLocalDescription(await pc.createAnswer())
        answer: str = pc.localDescription.sdp
        return answer
    finally:
        await pc.close()


@pytest.mark.parametrize("name", Corrections.names())
async def test_each_correction_can_be_switched_off(name: str) -> None:
    """With it there is our behaviour; without it, and without any, there is aiortc's own."""
    ways = (Corrections(), Corrections().without(name), Corrections.none())
    seen = []
    for corrections in ways:
        with rtp.installed(corrections) as in_force:
            assert in_force == corrections
            seen.append(await PROBES[name]())
    assert seen == [True, False, False]


PUBLISH = """async (url) => {
    const video = { width: { exact: 1280 }, height: { exact: 720 } };
    const stream = await navigator.mediaDevices.getUserMedia({ video });
    const pc = new RTCPeerConnection();
    pc.addTransceiver(stream.getVideoTracks()[0], { direction: 'sendonly', streams: [stream] });
    await pc.setLocalDescription();
    const response = await fetch(url, {
        method: 'POST',
        headers: { 'Content-Type': 'application/sdp' },
        body: pc.localDescription.sdp,
    });
    await pc.setRemoteDescription({ type: 'answer', sdp: await response.text() });
    window.publishing = pc;
    return response.headers.get('Location');
}"""
USED_CODEC = """async () => {
    const report = [...(await window.publishing.getStats()).values()];
    const { codecId } = report.find(({ type }) => type === 'outbound-rtp');
    return report.find(({ id }) => id === codecId).mimeType;
}"""


@pytest.mark.browser
@pytest.mark.parametrize("is_on", [True, False])
async def test_a_large_camera_is_not_held_small(is_on: bool) -> None:
    """Chromium's camera of 1280x720 comes as VP8 of that size; not so without the start bit rate.

    Without it, it comes at 640x360 for as long as anybody has watched.
    """
    corrections = Corrections() if is_on else Corrections().without("start-bitrate")
    flag = "--use-fake-device-for-media-stream"
    with rtp.installed(corrections):
        async with serving(ColourEngine) as server, chromium(flag) as browser:
            context = await browser.new_context(permissions=["camera"])
            context.set_default_timeout(PAGE_DEADLINE_MS)
            page = await context.new_page()
            await page.goto(f"{server.base}/healthz")
            location = await page.evaluate(PUBLISH, "/whip?bypass=1")
            slot = server.sessions.camera(location.rpartition("/")[2]).broadcast.subscribe()
            widths = []
            async with asyncio.timeout(20):
                while len(widths) < 60 and 1280 not in widths:
                    widths.append((await slot.get()).frame.width)
            assert await page.evaluate(USED_CODEC) == "video/VP8"
    assert (1280 in widths) == is_on
