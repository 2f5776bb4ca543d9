"""RTP timestamps."""

from __future__ import annotations

import pytest
from aiortc.rtcdtlstransport import RtpRouter
from aiortc.rtcrtpreceiver import RTCRtpReceiver

from stream.corrections import Corrections
from stream.receiver import Receiver
from stream.timestamps import Timestamps


@pytest.mark.parametrize(
    ("given", "mapped"),
    [
        ((7000, 10000, 13000), (0, 3000, 6000)),
        ((0, 9000, 3000, 6000, 18000), (0, 9000, 3000, 6000, 18000)),
        ((2**32 - 3000, 0, 2**32 - 1500, 3000), (0, 3000, 1500, 6000)),
        ((3000, 0), (0, -3000)),
    ],
)
def test_order_of_decoding_is_no_wrap(given: tuple[int, ...], mapped: tuple[int, ...]) -> None:
    """Steps back stay small, and a wrap goes on."""
    timestamps = Timestamps()
    assert tuple(map(timestamps.map, given)) == mapped


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_receiver_maps_with_it(kind: str) -> None:
    """What is received has these timestamps, not aiortc's."""
    transport = type("Transport", (), {"state": "new", "_rtp_router": RtpRouter()})()
    receiver = Receiver(kind, transport, Corrections())
    assert isinstance(receiver, RTCRtpReceiver)
    assert isinstance(receiver._RTCRtpReceiver__timestamp_mapper, Timestamps)
