import asyncio
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription
from aiortc.codecs import depayload, get_decoder
from aiortc.codecs.g711 import PcmuEncoder
from aiortc.codecs.h264 import PACKET_MAX
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import VIDEO_TIME_BASE
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from av.video.frame import PictureType
from av.video.reformatter import ColorRange
from engines import ColourEngine
from peers import Player, flat, serving

from stream import codecs, encoders, rtp
from stream.bitrate import EncoderPlan
from stream.codecs import H264, VideoEncoder, Vp8, make_encoder, to_i420
from stream.corrections import Corrections
from stream.keyframes import KeyStart, find_key_start

VP8_CODEC = RTCRtpCodecParameters(mimeType="video/VP8", clockRate=90000, payloadType=97)
H264_CODEC = RTCRtpCodecParameters(
    mimeType="video/H264",
    clockRate=90000,
    payloadType=99,
    parameters={"packetization-mode": "1", "profile-level-id": "42e01f"},
)
BOTH = pytest.mark.parametrize("codec", [VP8_CODEC, H264_CODEC], ids=["VP8", "H264"])


def frame_at(index: int, width: int = 320, height: int = 240, noise: int = 20) -> av.VideoFrame:
    image = np.linspace(40, 200, width, dtype=np.uint8)[None].repeat(height * 3 // 2, 0)
    image[height:] = 128
    image[:height] = np.roll(image[:height], index * 5, axis=1)
    image[:height] += np.random.default_rng(index).integers(
        0, noise, (height, width), dtype=np.uint8
    )
    frame = av.VideoFrame.from_ndarray(image, "yuv420p")
    frame.pts = index * 3000
    frame.time_base = VIDEO_TIME_BASE
    return frame


def luma(frame: av.VideoFrame) -> np.ndarray:
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, : frame.width]


def decode(codec: RTCRtpCodecParameters, decoder: Any, payloads: list[bytes]) -> av.VideoFrame:
    data = b"".join(depayload(codec, payload) for payload in payloads)
    (frame,) = decoder.decode(JitterFrame(data, 0))
    return frame


def is_key(codec: RTCRtpCodecParameters, payloads: list[bytes]) -> bool:
    return find_key_start(codec.name, payloads[0]) is KeyStart.YES


@BOTH
def test_every_frame_comes_out_at_once_and_looks_alike(codec: RTCRtpCodecParameters) -> None:
    """One frame in is one frame out, decodable by aiortc, near the original, in small packets."""
    encoder, decoder = make_encoder(codec), get_decoder(codec)
    for index in range(8):
        frame = frame_at(index, noise=3)
        payloads, timestamp = encoder.encode(frame)
        assert timestamp == index * 3000
        assert max(map(len, payloads)) <= PACKET_MAX
        decoded = decode(codec, decoder, payloads)
        assert decoded.format.name == "yuv420p"
        error = np.abs(luma(decoded).astype(int) - luma(frame_at(index, noise=3)))
        assert error.mean() < 6


@BOTH
def test_a_key_frame_comes_first_and_when_it_is_asked_for(codec: RTCRtpCodecParameters) -> None:
    """Neither the calendar nor the type of a decoded frame makes key frames."""
    encoder = make_encoder(codec)
    keys = []
    for index in range(90):
        frame = frame_at(index, 64, 64)
        frame.pict_type = PictureType.I
        keys.append(is_key(codec, encoder.encode(frame, force_keyframe=index == 50)[0]))
    assert [index for index, key in enumerate(keys) if key] == [0, 50]


@BOTH
def test_a_frame_that_is_not_later_is_not_sent(codec: RTCRtpCodecParameters) -> None:
    """Negative, equal and earlier times end libvpx; they are left out, and a key frame waits."""
    encoder = make_encoder(codec)
    assert isinstance(encoder, VideoEncoder)
    encoder.encode(frame_at(5))
    for pts in (-3000, 15000, 12000):
        frame = frame_at(6)
        frame.pts = pts
        assert encoder.encode(frame, force_keyframe=pts == 12000)[0] == []
    assert encoder.refused_frames == 3
    assert is_key(codec, encoder.encode(frame_at(6))[0])


@BOTH
def test_the_bit_rate_is_kept(codec: RTCRtpCodecParameters) -> None:
    """A picture of noise gets what its size is worth, no more."""
    encoder = make_encoder(codec)
    assert isinstance(encoder, VideoEncoder)
    sizes = [sum(map(len, encoder.encode(frame_at(index, noise=60))[0])) for index in range(60)]
    assert encoder.plan is not None
    sent_bps = sum(sizes[15:]) * 8 / 45 * 30
    assert sent_bps == pytest.approx(encoder.plan.bitrate_bps, rel=0.35)


@BOTH
def test_the_encoder_stays_while_the_estimate_wobbles(codec: RTCRtpCodecParameters) -> None:
    """A new estimate for every frame costs no key frame."""
    encoder = make_encoder(codec)
    assert isinstance(encoder, VideoEncoder)
    keys = 0
    for index in range(60):
        encoder.target_bitrate = 300_000 + index % 3 * 200_000
        keys += is_key(codec, encoder.encode(frame_at(index, 64, 64))[0])
    assert keys == 1


@BOTH
def test_another_size_is_taken_up_in_mid_stream(codec: RTCRtpCodecParameters) -> None:
    """A camera that changes its size goes on with a key frame of that size."""
    encoder, decoder = make_encoder(codec), get_decoder(codec)
    decode(codec, decoder, encoder.encode(frame_at(0))[0])
    payloads, _ = encoder.encode(frame_at(1, 160, 120))
    assert is_key(codec, payloads)
    decoded = decode(codec, decoder, payloads)
    assert (decoded.width, decoded.height) == (160, 120)


def test_a_ready_frame_is_encoded_without_a_copy() -> None:
    """I420 of the right size goes in as it is."""
    plan = EncoderPlan(320, 240, 500_000, 30)
    frame = frame_at(0)
    assert to_i420(frame, plan) is frame
    assert to_i420(frame, EncoderPlan(160, 120, 100_000, 30)).width == 160


@pytest.mark.parametrize("name", ["yuvj420p", "yuv420p"])
def test_full_range_becomes_limited(name: str) -> None:
    """White of 255 is white of 235 for an encoder that says nothing about its range."""
    frame = av.VideoFrame(64, 64, name)
    frame.planes[0].update(bytes([255]) * frame.planes[0].buffer_size)
    for plane in frame.planes[1:]:
        plane.update(bytes([128]) * plane.buffer_size)
    frame.color_range = ColorRange.JPEG
    frame.pts, frame.time_base = 7, VIDEO_TIME_BASE
    converted = to_i420(frame, EncoderPlan(64, 64, 100_000, 30))
    assert converted.format.name == "yuv420p"
    assert int(luma(converted)[32, 32]) == 235
    assert (converted.pts, converted.time_base) == (7, VIDEO_TIME_BASE)


def test_a_full_range_stream_says_so_when_it_is_decoded() -> None:
    """The range of an H264 stream reaches those who convert its frames."""
    encoder = encoders.open_x264(EncoderPlan(64, 64, 200_000, 30))
    encoder.pix_fmt = "yuvj420p"
    frame = frame_at(0, 64, 64).reformat(format="yuvj420p")
    frame.pts, frame.time_base = 0, VIDEO_TIME_BASE
    data = b"".join(bytes(packet) for packet in encoder.encode(frame))
    (decoded,) = get_decoder(H264_CODEC).decode(JitterFrame(data, 0))
    assert decoded.format.name == "yuvj420p"
    assert decoded.color_range == ColorRange.JPEG


def test_single_unit_packets_for_those_who_take_no_other() -> None:
    """With packetization-mode 0 every unit fits into a packet and travels alone."""
    codec = RTCRtpCodecParameters(
        mimeType="video/H264",
        clockRate=90000,
        payloadType=99,
        parameters={"packetization-mode": "0"},
    )
    encoder, decoder = make_encoder(codec, h264="h264_nvenc"), get_decoder(codec)
    payloads, _ = encoder.encode(frame_at(0, 640, 480, noise=100))
    assert len(payloads) > 3
    assert max(map(len, payloads)) <= PACKET_MAX
    assert {payload[0] & 0x1F for payload in payloads} <= {5, 6, 7, 8}
    assert decode(codec, decoder, payloads).width == 640


def test_audio_keeps_its_encoder() -> None:
    """Only video is ours."""
    codec = RTCRtpCodecParameters(mimeType="audio/PCMU", clockRate=8000, payloadType=0)
    assert isinstance(make_encoder(codec), PcmuEncoder)


def test_already_encoded_frames_are_only_cut() -> None:
    """A track that brings packets of its own is sent as it is."""
    source = encoders.open_vp8(EncoderPlan(320, 240, 500_000, 30))
    (packet,) = source.encode(frame_at(0))
    payloads, timestamp = Vp8().pack(packet)
    assert timestamp == 0
    assert b"".join(depayload(VP8_CODEC, payload) for payload in payloads) == bytes(packet)


def test_a_failing_hardware_encoder_is_replaced_for_its_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A card that takes no further session leaves the picture to libx264, for good."""
    tried = []

    def refuse(plan: EncoderPlan) -> None:
        tried.append(plan)
        raise av.FFmpegError(12, "no more sessions")

    monkeypatch.setattr(codecs, "open_nvenc", refuse)
    encoder = make_encoder(H264_CODEC, h264="h264_nvenc")
    assert isinstance(encoder, H264)
    keys = [is_key(H264_CODEC, encoder.encode(frame_at(index))[0]) for index in range(3)]
    assert (keys, len(tried)) == ([True, False, False], 1)
    assert encoder.encoder_name == "libx264"
    # The next session asks the card again.
    make_encoder(H264_CODEC, h264="h264_nvenc").encode(frame_at(0))
    assert len(tried) == 2


@BOTH
def test_a_poor_network_gets_a_smaller_picture_and_the_full_one_back(
    codec: RTCRtpCodecParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream goes on smaller and with fewer bits, and returns; all of it can be decoded."""
    now_s = [100.0]
    monkeypatch.setattr(codecs, "time", SimpleNamespace(perf_counter=lambda: now_s[0]))
    encoder, decoder = make_encoder(codec), get_decoder(codec)
    assert isinstance(encoder, VideoEncoder)
    widths, keys = [], 0
    for index in range(350):
        now_s[0] += 0.2
        frame = frame_at(index, 320, 240, noise=60)
        frame.pts = index * 18000
        if index > 15:
            encoder.target_bitrate = 110_000 if index < 60 else 4_000_000
        payloads, _ = encoder.encode(frame)
        keys += is_key(codec, payloads)
        widths.append(decode(codec, decoder, payloads).width)
    assert widths[0] == widths[-1] == 320
    assert min(widths) == 240
    # Each change of the plan is a key frame; up and down in turns it would be many more.
    assert keys <= 12


async def answer_to(*lines: str) -> tuple[str | None, str]:
    """Answer an offer of some codecs; return the one put first, and the answer."""
    offer = "\r\n".join(
        [
            "v=0",
            "o=- 1 1 IN IP4 0.0.0.0",
            "s=-",
            "t=0 0",
            "a=setup:actpass",
            "a=ice-ufrag:nxcM",
            "a=ice-pwd:ezjAjgSSLLvbRhUA1zc6Se",
            "a=fingerprint:sha-256 " + ":".join(["AB"] * 32),
            "m=video 9 UDP/TLS/RTP/SAVPF "
            + " ".join(line.split(":")[1].split(" ")[0] for line in lines if "rtpmap" in line),
            "c=IN IP4 0.0.0.0",
            "a=mid:0",
            "a=sendonly",
            "a=rtcp-mux",
            *lines,
            "",
        ]
    )
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    try:
        await pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        first = codecs.prefer_codec(pc)
        await pc.setLocalDescription(await pc.createAnswer())
        return first, pc.localDescription.sdp
    finally:
        await pc.close()


@pytest.mark.parametrize("mode", ["0", "1"])
@pytest.mark.parametrize("profile", ["42e01f", "42001f", "4d001f", "640c1f", "640c34", "64001f"])
async def test_every_h264_of_the_field_is_negotiated(
    corrected: None, profile: str, mode: str
) -> None:
    """Baseline, main and high, in both packetizations, as OBS and hardware offer them."""
    first, answer = await answer_to(
        "a=rtpmap:96 H264/90000",
        f"a=fmtp:96 profile-level-id={profile};packetization-mode={mode}",
    )
    assert first == "H264"
    assert "a=rtpmap:96 H264/90000" in answer
    assert f"packetization-mode={mode}" in answer


async def test_h264_without_parameters_is_negotiated(corrected: None) -> None:
    """An offer that says nothing means constrained baseline in single units (RFC 6184)."""
    first, _ = await answer_to("a=rtpmap:96 H264/90000")
    assert first == "H264"


VP8_LINES = ("a=rtpmap:103 VP8/90000",)
H264_LINES = (
    "a=rtpmap:100 H264/90000",
    "a=fmtp:100 profile-level-id=640c1f;packetization-mode=0",
    "a=rtpmap:101 H264/90000",
    "a=fmtp:101 profile-level-id=42e01f;packetization-mode=1",
    "a=rtpmap:102 rtx/90000",
    "a=fmtp:102 apt=101",
)
FOREIGN_LINES = ("a=rtpmap:110 AV1/90000", "a=rtpmap:111 rtx/90000", "a=fmtp:111 apt=110")


@pytest.mark.parametrize(
    ("lines", "first", "order"),
    [
        (VP8_LINES + H264_LINES, "VP8", "103 101 100 102"),
        (FOREIGN_LINES + VP8_LINES + H264_LINES, "VP8", "103 101 100 102"),
        (H264_LINES + VP8_LINES, "H264", "101 100 103 102"),
        (H264_LINES, "H264", "101 100 102"),
    ],
)
async def test_the_offers_favourite_is_answered_first(
    corrected: None, lines: tuple[str, ...], first: str, order: str
) -> None:
    """What an offer lists first of what we know is answered first, in its simplest variant."""
    favourite, answer = await answer_to(*lines)
    assert favourite == first
    assert f"SAVPF {order}\r\n" in answer


async def test_players_get_what_they_ask_for(corrected: None) -> None:
    """Of two who watch one camera, the one whose offer lists H264 first is sent H264."""
    async with serving(ColourEngine) as server:
        publisher = await server.publish(flat((200, 120, 40)))
        sent = {}
        for codec in ("VP8", "H264"):
            player = Player(server.http, server.base)
            server.peers.append(player)
            offered = RTCRtpReceiver.getCapabilities("video").codecs
            transceiver = player.pc.addTransceiver("video", "recvonly")
            transceiver.setCodecPreferences(sorted(offered, key=lambda c: c.name != codec))
            await player.post(f"/whep/{publisher.id}")
            await player.until_frames(1)
            session = server.sessions.viewer(player.location.rpartition("/")[2])
            (sender,) = session._peer_connection.getSenders()
            sent[codec] = type(sender._RTCRtpSender__encoder)
    assert sent == {"VP8": Vp8, "H264": H264}


async def test_switched_off_the_variants_are_refused() -> None:
    """Without the correction aiortc negotiates baseline alone, as it always did."""
    with (
        rtp.installed(Corrections().without("h264-profiles")),
        pytest.raises(Exception, match="Failed to set remote video"),
    ):
        await answer_to(
            "a=rtpmap:96 H264/90000",
            "a=fmtp:96 profile-level-id=640c1f;packetization-mode=1",
        )


async def test_encoding_leaves_the_loop_free() -> None:
    """An encoder works in another thread as well, one call after the other."""
    encoder = make_encoder(VP8_CODEC)
    loop = asyncio.get_running_loop()
    for index in range(3):
        payloads, timestamp = await loop.run_in_executor(None, encoder.encode, frame_at(index))
        assert payloads
        assert Fraction(timestamp, 90000) == Fraction(index, 30)
