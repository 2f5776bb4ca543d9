"""The data channel, at a peer that does not read it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from engines import ColourEngine
from peers import DEADLINE_S, flat, serving
from test_stream_scheduler import Owner

from stream import rtp
from stream.channel import LABEL, MAX_UNREAD_BYTES, ControlChannel
from stream.controls import Controls
from stream.live_controls import LiveControls
from stream.messages import MAX_PENDING_BYTES, MESSAGES_AT_ONCE
from stream.region import Segmenters
from stream.scheduler import EngineThread
from stream.stats import Metrics


class UnreadChannel:
    """Takes everything and delivers nothing."""

    label = LABEL
    readyState = "open"  # aiortc's name for it

    def __init__(self) -> None:
        self.bufferedAmount = 0

    def on(self, event: str, receive: Any) -> None:
        self.receive = receive

    def send(self, text: str) -> None:
        self.bufferedAmount += len(text)


class ReadChannel(UnreadChannel):
    """Delivers everything at once."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[dict[str, Any]] = []
        self.is_closed = False

    def send(self, text: str) -> None:
        self.sent.append(json.loads(text))

    def close(self) -> None:
        self.is_closed = True


def open_channel(given: UnreadChannel, reasons: list[str]) -> ControlChannel:
    """Open a session's side of a channel; why it ends goes into ``reasons``."""
    engine = EngineThread(ColourEngine, Metrics())
    controls = LiveControls(Owner(engine, Controls()).feed, engine, Segmenters(None))
    channel = ControlChannel(controls, reasons.append)
    channel.open(given)  # type: ignore[arg-type]
    return channel


async def test_peer_that_reads_nothing_is_let_go() -> None:
    """Errors and settings fill a bounded buffer; then the session ends with one sentence."""
    reasons: list[str] = []
    unread = UnreadChannel()
    channel = open_channel(unread, reasons)
    for _ in range(40):
        unread.receive("{}")
    for _ in range(10_000):
        channel.send_controls(Controls())
        channel.send_notice("info", "still here")
    assert MAX_UNREAD_BYTES < unread.bufferedAmount < MAX_UNREAD_BYTES + 1024
    assert set(reasons) == {"the peer left 262144 bytes of its control channel unread"}


async def test_too_many_messages_are_refused_then_end_the_session() -> None:
    """A burst is answered; of what is too many only the first is, and who goes on is let go."""
    reasons: list[str] = []
    read = ReadChannel()
    open_channel(read, reasons)
    for number in range(MESSAGES_AT_ONCE + 500):
        read.receive(json.dumps({"id": number, "set": {"strength": 0.5}}))
    answers = [message for message in read.sent if message.get("id") is not None]
    errors = [message for message in read.sent if message["type"] == "error"]
    # Some more than the burst, for meanwhile time has passed.
    assert MESSAGES_AT_ONCE <= len(answers) < MESSAGES_AT_ONCE + 400
    assert errors
    assert errors[0]["detail"] == "more than 60 messages a second are not answered"
    assert not reasons
    for _ in range(100_000):
        read.receive("{}")
        if reasons:
            break
    assert reasons == ["the peer sent 1000 control messages too many"]


async def test_channels_beside_the_one_are_closed_then_end_the_session() -> None:
    """Who opens channel after channel is let go."""
    reasons: list[str] = []
    channels = [ReadChannel() for _ in range(10)]
    channel = open_channel(channels[0], reasons)
    for each in channels[1:]:
        channel.open(each)  # type: ignore[arg-type]
    assert [each.is_closed for each in channels] == [False] + [True] * 9
    assert reasons == ["the peer opened more than 8 data channels that are none"]


async def test_great_messages_are_refused_or_end_their_session() -> None:
    """Of 20 kB: refused. One that does not end: its session does, before it takes memory."""
    with rtp.installed():
        async with serving(ColourEngine) as server:
            peer = await server.connect(flat((200, 120, 40)))
            await peer.until_frames(2)
            peer.channel.send(json.dumps({"id": 7, "set": {"prompt": "x" * 20_000}}))
            error = await peer.until_message(lambda m: m["type"] == "error")
            assert "16384 bytes" in error["detail"]
            sctp = server.session(peer)._peer_connection.sctp
            task = next(iter(server.app_tasks().values()))
            # Past the check that keeps an honest peer from it.
            await peer.pc.sctp._send(peer.channel.id, 51, bytes(10_000_000))
            async with asyncio.timeout(DEADLINE_S):
                await asyncio.wait([task])
            pending = sum(
                len(chunk.user_data)
                for stream in sctp._inbound_streams.values()
                for chunk in stream.reassembly
            )
            assert 0 < pending <= MAX_PENDING_BYTES
            assert len(server.sessions) == 0
