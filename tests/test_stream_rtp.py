import asyncio
import logging
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiortc
import aiortc.codecs
import aiortc.rtcpeerconnection
import aiortc.rtcrtpreceiver
import aiortc.rtcrtpsender
import aiortc.rtp
import pytest
from aiortc import clock
from aiortc.rtp import RtcpRrPacket, RtpPacket
from rtp_peers import DEADLINE_S, Network, NumberedTrack, connect, lose_at_random

from stream import expectations, rtp
from stream.corrections import Corrections
from stream.receiver import (
    MAX_AUDIO_FRAMES,
    MAX_STREAMS,
    MAX_UNDECODED_FRAMES,
    DecoderQueue,
    NewestQueue,
    Receiver,
    RemoteTrack,
)
from stream.sender import Sender
from stream.stamps import CAPACITY_FRAMES, ReceivedFrames, SentFrame

RATE_HZ = 30
STOCK = Corrections.none()
BOTH = pytest.mark.parametrize("codec", ["VP8", "H264"])
ANSWER = "\r\n".join(
    [
        "v=0",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        "a=rtpmap:111 opus/48000/2",
        "m=video 9 UDP/TLS/RTP/SAVPF 96 97 98",
        "a=rtpmap:96 VP8/90000",
        "a=rtcp-fb:96 nack",
        "a=rtpmap:97 rtx/90000",
        "a=fmtp:97 apt=96",
        "a=rtpmap:98 H264/90000",
        "a=fmtp:98 packetization-mode=1",
        "",
    ]
)


class LoseOnce:
    """Loses one packet in the middle of a stream, with every retransmission of it, or not."""

    def __init__(self, at: int, *, retransmissions: int = 0) -> None:
        self.lost: RtpPacket | None = None
        self.lost_s = 0.0
        self._at = at
        self._retransmissions = retransmissions
        self._seen = 0

    def __call__(self, packet: RtpPacket, is_retransmission: bool) -> bool:
        if is_retransmission and self._retransmissions > 0:
            self._retransmissions -= 1
            return True
        self._seen += not is_retransmission
        if self.lost is None and self._seen == self._at:
            self.lost, self.lost_s = packet, time.perf_counter()
            return True
        return False


class LoseBursts:
    """Loses everything for 200 ms, again and again."""

    def __init__(self, starts_s: tuple[float, ...]) -> None:
        self.lost = 0
        self._starts_s = starts_s
        self._start_s = 0.0

    def __call__(self, packet: RtpPacket, is_retransmission: bool) -> bool:
        self._start_s = self._start_s or time.perf_counter()
        at_s = time.perf_counter() - self._start_s
        is_lost = any(start_s <= at_s < start_s + 0.2 for start_s in self._starts_s)
        self.lost += is_lost
        return is_lost


@BOTH
async def test_a_frame_is_decoded_before_the_next_one_is_made(codec: str) -> None:
    """The marker saves the frame interval that aiortc waits; switched off it is back."""
    early = {}
    for name, corrections in (("ours", Corrections()), ("stock", STOCK)):
        with rtp.installed(corrections):
            # Slow enough for a busy machine to be done before the next frame.
            async with connect(codec, source=NumberedTrack(rate_hz=10)) as pair:
                await pair.receive(15)
                made_s = pair.source.made_s
                early[name] = sum(
                    arrival.at_s < made_s.get(arrival.number + 1, 0.0) for arrival in pair.arrivals
                )
                assert pair.unreadable == 0
    assert early["stock"] == 0
    assert early["ours"] > 5


async def test_random_loss_is_repaired() -> None:
    """With 2 % of all packets lost, the picture neither stops nor falls behind nor breaks."""
    with rtp.installed():
        network = Network(lose=lose_at_random(0.02, seed=7))
        async with connect(network=network, source=NumberedTrack(640, 480)) as pair:
            await pair.receive(120)
            assert network.lost >= 5
            assert pair.receiver.counters.nacks >= 5
            assert pair.longest_pause_s() < pair.within_s(0.5)
            assert pair.unreadable == 0
            assert pair.median_ms(since=90) < pair.within_s(0.1) * 1000


async def test_bursts_are_survived() -> None:
    """After 200 ms without a packet it moves again within 500 ms, and keeps no lag."""
    with rtp.installed():
        bursts = LoseBursts((0.7, 1.6))
        async with connect(network=Network(lose=bursts)) as pair:
            await pair.receive_for(4.0)
            assert bursts.lost > 4
            # The burst itself, and what it takes to go on.
            assert pair.longest_pause_s() < pair.within_s(0.2 + 0.5)
            assert pair.unreadable == 0
            assert pair.median_ms(since=-20) < pair.within_s(0.1) * 1000


@BOTH
async def test_a_lost_packet_with_its_lost_retransmission(codec: str) -> None:
    """It is asked for again, so that the picture does not even need a key frame."""
    with rtp.installed():
        loss = LoseOnce(60, retransmissions=1)
        async with connect(codec, Network(lose=loss), NumberedTrack(640, 480)) as pair:
            await pair.receive(75)
            assert loss.lost is not None
            assert pair.receiver.counters.nacks >= 2
            # A busy machine may miss the time of its second question.
            assert pair.receiver.counters.gaps_skipped <= (pair.longest_hiccup_s > 0.03)
            assert pair.longest_pause_s() < pair.within_s(0.5)
            assert pair.median_ms(since=-10) < pair.within_s(0.1) * 1000


async def test_a_packet_that_never_comes_is_skipped() -> None:
    """With every retransmission lost, a key frame follows within half a second."""
    with rtp.installed():
        loss = LoseOnce(60, retransmissions=10**6)
        async with connect(network=Network(lose=loss), source=NumberedTrack(640, 480)) as pair:
            await pair.receive(75)
            counters = pair.receiver.counters
            assert counters.gaps_skipped == 1
            assert counters.key_frames_asked >= 1
            assert pair.longest_pause_s() < pair.within_s(0.5)
            assert pair.unreadable == 0
            assert pair.median_ms(since=-10) < pair.within_s(0.1) * 1000


@pytest.mark.parametrize(("round_trip_s", "limit_s"), [(0.005, 0.1), (0.05, 0.15), (2.0, 0.15)])
async def test_a_gap_is_waited_for_by_round_trip(round_trip_s: float, limit_s: float) -> None:
    """As long as a packet is asked for, and never longer than 150 ms."""
    with rtp.installed():
        async with connect() as pair:
            nacks = pair.receiver._nacks
            for number in range(0, 200, 2):
                nacks.insert(number, number * 10.0)
                nacks.take_due(number * 10.0)
                nacks.insert(number - 1 & 0xFFFF, number * 10.0 + round_trip_s)
            assert pair.receiver._gap_limit_s() == pytest.approx(limit_s, rel=0.1)


async def test_without_the_corrections_it_stands_still() -> None:
    """Stock aiortc waits seconds for that packet: the loss is real, and so is the switch."""
    with rtp.installed(STOCK):
        loss = LoseOnce(30, retransmissions=10**6)
        async with connect(network=Network(lose=loss), source=NumberedTrack(640, 480)) as pair:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(60 / RATE_HZ + 1.5):
                    await pair.receive(60)
            assert loss.lost is not None
            assert len(pair.arrivals) > 5


async def test_reordering_and_duplicates_change_nothing() -> None:
    """Every frame comes once and in order, and not one key frame is asked for."""
    # Two frames that complete at once would be one with the newest-frame queue.
    with rtp.installed(Corrections().without("bounded-queues")):
        network = Network(is_doubled=True, swap_every=3)
        async with connect(network=network, source=NumberedTrack(640, 480)) as pair:
            await pair.receive(45)
            numbers = [arrival.number for arrival in pair.arrivals]
            assert numbers == list(range(numbers[0], numbers[0] + 45))
            counters = pair.receiver.counters
            # A busy machine may be late for its first key frame.
            assert counters.key_frames_asked <= (pair.longest_hiccup_s > 0.03)
            assert counters.gaps_skipped == 0


async def test_a_slow_consumer_sees_the_newest_frame() -> None:
    """What nobody takes in time is replaced; switched off it queues up."""
    waiting, taken = {}, {}
    for name, corrections in (("ours", Corrections()), ("stock", STOCK)):
        with rtp.installed(corrections):
            async with connect() as pair:
                await pair.receive(1)
                source = pair.source
                await source.reach(20)
                waiting[name] = pair.track._queue.qsize()
                await pair.receive(2)
                taken[name] = pair.arrivals[1].number
                assert name == "stock" or pair.track.dropped > 5
    assert waiting["ours"] <= 1
    assert waiting["stock"] > 5
    assert taken["stock"] == 1
    assert taken["ours"] > 5


async def test_a_decoder_error_asks_for_one_key_frame() -> None:
    """What aiortc asks for at every packet is asked for at our pace."""
    with rtp.installed():
        async with connect() as pair:
            await pair.receive(3)
            receiver = pair.receiver
            for _ in range(50):
                await receiver._send_rtcp_pli(1)
            await pair.receive(12)
            assert receiver.counters.key_frames_asked == 1


async def test_a_decoder_that_falls_behind_goes_on_at_a_key_frame() -> None:
    """Its queue has a bound; what is too much is dropped up to the next key frame."""
    with rtp.installed():
        async with connect() as pair:
            await pair.receive(3)
            receiver = pair.receiver
            for _ in range(MAX_UNDECODED_FRAMES + 1):
                if receiver.counters.overflows:
                    break
                frame = SimpleNamespace(is_key_frame=False, data=b"", timestamp=0)
                receiver._RTCRtpReceiver__decoder_queue.put(
                    (receiver._RTCRtpReceiver__codecs[97], frame)
                )
            assert receiver.counters.overflows == 1
            assert receiver._jitter_buffer.waits_for_key_frame
            await pair.receive(8)
            assert not receiver._jitter_buffer.waits_for_key_frame


async def test_frames_are_stamped_on_their_way() -> None:
    """Complete, decoded, encoded, sent: each has its time, in this order, by the pts."""
    with rtp.installed():
        async with connect() as pair:
            sent: dict[int, SentFrame] = {}
            rtp.on_sent(pair.sender, lambda frame: sent.setdefault(frame.pts, frame))
            await pair.receive(12)
            for arrival in pair.arrivals[:-1]:
                received = rtp.received(pair.track, arrival.pts)
                assert received is not None
                assert received.decoded_s is not None
                # The receiver counts from its first frame, whose number that was.
                frame = sent[arrival.number * 90000 // RATE_HZ]
                made_s = pair.source.made_s[arrival.number]
                assert made_s < frame.encoded_s <= frame.sent_s
                assert frame.encoded_s < received.complete_s < received.decoded_s
                assert received.decoded_s <= arrival.at_s
            assert rtp.received(pair.track, -1) is None
            assert rtp.received(pair.track, None) is None


async def test_without_stamps_nothing_is_known() -> None:
    """Switched off, a track knows no times, and nobody is called."""
    with rtp.installed(STOCK):
        async with connect() as pair:
            calls: list[SentFrame] = []
            rtp.on_sent(pair.sender, calls.append)
            await pair.receive(3)
            assert rtp.received(pair.track, pair.arrivals[0].pts) is None
            assert calls == []


async def test_every_correction_can_be_switched_off_alone() -> None:
    """Without any single one of them the picture still comes."""
    for name in Corrections.names():
        with rtp.installed(Corrections().without(name)):
            async with connect() as pair:
                await pair.receive(3)
                assert pair.unreadable == 0


@pytest.mark.parametrize("name", ["jitter-buffer", "feedback"])
async def test_loss_without_one_of_the_two(name: str) -> None:
    """Each of the two that repair losses works without the other."""
    with rtp.installed(Corrections().without(name)):
        loss = LoseOnce(60)
        async with connect(network=Network(lose=loss), source=NumberedTrack(640, 480)) as pair:
            await pair.receive(50)
            assert loss.lost is not None
            assert pair.longest_pause_s() < pair.within_s(0.5)


async def test_closing_ends_every_task() -> None:
    """Nothing that a peer started outlives it."""
    before = asyncio.all_tasks()
    with rtp.installed():
        async with connect() as pair:
            await pair.receive(3)
            assert any(task.get_name() == "feedback" for task in asyncio.all_tasks())
    left = asyncio.all_tasks() - before
    if left:
        _, pending = await asyncio.wait(left, timeout=5)
        assert not pending


# Installing


def test_nothing_is_replaced_after_a_block() -> None:
    """Corrections are in force within a block; after it aiortc is as it was."""

    def parts() -> list[object]:
        connection = aiortc.rtcpeerconnection
        return [
            connection.RTCRtpReceiver,
            connection.RTCRtpSender,
            connection.RemoteStreamTrack,
            aiortc.rtp.HeaderExtensionsMap,
            aiortc.rtcrtpsender.get_encoder,
            aiortc.rtcicetransport.Connection,
            aiortc.rtcicetransport.Connection.__init__,
            list(aiortc.codecs.CODECS["video"]),
            list(aiortc.codecs.HEADER_EXTENSIONS["video"]),
        ]

    before = parts()
    with rtp.installed():
        inside = parts()
        assert all(a != b for a, b in zip(before, inside, strict=True))
        with rtp.installed(STOCK):
            assert parts() == before
        assert len(parts()[7]) == len(inside[7])
    assert parts() == before


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda patch: patch.setitem(expectations.VERSIONS, "aioice", "0.1"), "aioice is 0.13.0"),
        (
            lambda patch: patch.delattr("aiortc.rtcrtpreceiver.RTCRtpReceiver._send_rtcp_nack"),
            "_send_rtcp_nack is not there",
        ),
        (
            lambda patch: patch.setattr(
                "aiortc.rtcrtpreceiver.JitterBuffer.add", lambda self, packet, now: None
            ),
            "JitterBuffer.add takes",
        ),
        (
            lambda patch: patch.setattr(
                "aiortc.rtcrtpreceiver.decoder_worker", lambda loop: loop.get()
            ),
            "decoder_worker does not use decode, get_decoder, put",
        ),
    ],
)
def test_an_unknown_aiortc_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    spoil: Any,
    reason: str,
) -> None:
    """One warning tells what is different, and nothing is touched."""
    spoil(monkeypatch)
    with caplog.at_level(logging.WARNING), rtp.installed() as in_force:
        assert in_force == STOCK
        assert aiortc.rtcpeerconnection.RTCRtpReceiver is aiortc.RTCRtpReceiver
    (record,) = caplog.records
    assert reason in record.getMessage()


def test_what_is_known_is_pinned() -> None:
    """An installation brings the versions that the corrections were written for, no others."""
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    pinned = tomllib.loads(text)["project"]["dependencies"]
    assert {f"{name}=={version}" for name, version in expectations.VERSIONS.items()} <= {*pinned}


def test_this_aiortc_is_known() -> None:
    """The pinned versions look as the corrections expect them to."""
    assert expectations.find_surprises() == []


def test_switches_are_named() -> None:
    """Every correction has a switch, and a wrong name is answered with the right ones."""
    assert "jitter-buffer" in Corrections.names()
    assert not Corrections().without("playout-delay").playout_delay
    with pytest.raises(ValueError, match='no correction "fast"; there are: jitter-buffer'):
        Corrections().without("fast")


# The answer


def test_browsers_are_told_where_to_begin() -> None:
    """Each video codec gets the parameter, retransmission and audio do not."""
    with rtp.installed():
        shaped = rtp.shape_answer(ANSWER, 2_500_000).split("\r\n")
    assert "a=fmtp:96 x-google-start-bitrate=2500" in shaped
    assert "a=fmtp:98 packetization-mode=1;x-google-start-bitrate=2500" in shaped
    assert "a=fmtp:97 apt=96" in shaped
    assert len(shaped) == len(ANSWER.split("\r\n")) + 1
    assert sum("x-google" in line for line in shaped) == 2


def test_switched_off_the_answer_stays() -> None:
    """Without the correction not a byte of it changes."""
    with rtp.installed(Corrections().without("start-bitrate")):
        assert rtp.shape_answer(ANSWER, 2_500_000) == ANSWER


# Queues and stamps


async def test_the_newest_frame_replaces_the_oldest() -> None:
    """A full queue drops its oldest frame and counts; the end is never lost."""
    queue = NewestQueue(2, None)
    for pts in range(5):
        await queue.put(SimpleNamespace(pts=pts))
    assert [queue.get_nowait().pts for _ in range(2)] == [3, 4]
    assert queue.dropped == 3
    await queue.put(SimpleNamespace(pts=5))
    await queue.put(None)
    assert [queue.get_nowait().pts, queue.get_nowait()] == [5, None]


def test_audio_that_nobody_reads_has_a_bound() -> None:
    """A second of it is kept."""
    track = RemoteTrack("audio", corrections=Corrections())
    assert track._queue.maxsize == MAX_AUDIO_FRAMES


def test_a_key_frame_and_the_end_overtake() -> None:
    """What waits before a key frame, or at the end, needs no decoding any more."""
    queue = DecoderQueue(lambda: None)

    def frame(is_key_frame: bool) -> tuple[str, Any]:
        return "codec", SimpleNamespace(is_key_frame=is_key_frame)

    for is_key_frame in (True, False, False, True, False):
        queue.put(frame(is_key_frame))
    assert [queue.get()[1].is_key_frame for _ in range(2)] == [True, False]
    queue.put(frame(False))
    queue.put(None)
    assert queue.get() is None
    assert queue.empty()


def test_stamps_are_few() -> None:
    """Frames that nobody asks about are forgotten, the oldest first."""
    frames = ReceivedFrames()
    for pts in range(2 * CAPACITY_FRAMES):
        frames.complete(pts, float(pts))
        frames.decoded(pts, pts + 0.5)
    frames.decoded(10**9, 1.0)
    assert frames.get(0) is None
    newest = frames.get(2 * CAPACITY_FRAMES - 1)
    assert newest is not None
    assert newest.decoded_s == newest.complete_s + 0.5


async def test_ours_are_used_where_aiortc_makes_its_own() -> None:
    """A peer connection made now has our receiver, sender and track."""
    with rtp.installed():
        async with connect() as pair:
            assert isinstance(pair.receiver, Receiver)
            assert isinstance(pair.sender, Sender)
            assert isinstance(pair.track, RemoteTrack)


async def test_a_peer_of_a_thousand_streams_can_be_stopped() -> None:
    """Packets under ever other SSRCs are forgotten, and what is reported of them can be written."""
    with rtp.installed():
        async with connect() as pair:
            await pair.receive(1)
            receiver = pair.receiver
            payload_type = next(iter(receiver._RTCRtpReceiver__codecs))
            router = receiver.transport._rtp_router
            for ssrc in range(1, 1001):
                packet = RtpPacket(payload_type=payload_type, sequence_number=1, ssrc=ssrc)
                packet.extensions.abs_send_time = ssrc << 10
                assert router.route_rtp(packet) is receiver
                await receiver._handle_rtp_packet(packet, clock.current_ms())
            for streams in (
                receiver._RTCRtpReceiver__remote_streams,
                receiver._RTCRtpReceiver__active_ssrc,
                receiver._RTCRtpReceiver__remote_bitrate_estimator.ssrcs,
                router.ssrc_table,
            ):
                assert list(streams)[-1] == 1000
                assert len(streams) == MAX_STREAMS
            reports: asyncio.Queue[int] = asyncio.Queue()
            send = receiver._send_rtcp

            async def note(report: Any) -> None:
                await send(report)
                if isinstance(report, RtcpRrPacket):
                    reports.put_nowait(len(report.reports))

            receiver._send_rtcp = note
            async with asyncio.timeout(DEADLINE_S):
                assert await reports.get() >= MAX_STREAMS - 1
                await receiver.stop()
