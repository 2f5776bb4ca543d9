"""The data channel, at a peer that does not read it."""

from __future__ import annotations

from typing import Any

from engines import ColourEngine
from test_stream_scheduler import Owner

from stream.channel import LABEL, MAX_UNREAD_BYTES, ControlChannel
from stream.controls import Controls
from stream.live_controls import LiveControls
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


async def test_peer_that_reads_nothing_is_let_go() -> None:
    """Errors and settings fill a bounded buffer; then the session ends with one sentence."""
    reasons: list[str] = []
    engine = EngineThread(ColourEngine, Metrics())
    controls = LiveControls(Owner(engine, Controls()).feed, engine, Segmenters(None))
    channel = ControlChannel(controls, reasons.append)
    unread = UnreadChannel()
    channel.open(unread)  # type: ignore[arg-type]
    for _ in range(40):
        unread.receive("{}")
    for _ in range(10_000):
        channel.send_controls(Controls())
        channel.send_notice("info", "still here")
        unread.receive("{}")
    assert MAX_UNREAD_BYTES < unread.bufferedAmount < MAX_UNREAD_BYTES + 1024
    assert set(reasons) == {"the peer left 262144 bytes of its control channel unread"}
