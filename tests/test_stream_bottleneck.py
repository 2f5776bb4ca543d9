"""A link that is too narrow for a while, between two real peers."""

from __future__ import annotations

import pytest
from av.video.codeccontext import VideoCodecContext
from rtp_peers import Bottleneck, NumberedTrack, connect

from stream import bitrate, codecs
from stream.bitrate import EncoderPlan

pytestmark = pytest.mark.usefixtures("corrected")

NARROW_BPS = 150_000


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[EncoderPlan]:
    """Return what each encoder is opened with."""
    opened: list[EncoderPlan] = []
    open_vp8 = codecs.open_vp8

    def watch(plan: EncoderPlan) -> VideoCodecContext:
        opened.append(plan)
        return open_vp8(plan)

    monkeypatch.setattr(codecs, "open_vp8", watch)
    return opened


async def test_it_steps_down_before_a_bottleneck_and_back_up_after_it(
    plans: list[EncoderPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Smaller and at a lower rate while the link is narrow, in few steps; more when it is free."""
    monkeypatch.setattr(bitrate, "FIRST_PATIENCE_S", 0.5)
    link = Bottleneck()
    async with connect(network=link, source=NumberedTrack(noise=6)) as pair:
        await pair.receive_for(5)
        assert (plans[0].width, plans[0].height) == (320, 240)
        assert plans[0].bitrate_bps > 2 * NARROW_BPS

        before = len(plans) - 1
        link.rate_bps = NARROW_BPS
        await pair.receive(10**6, lambda: plans[-1].bitrate_bps <= NARROW_BPS)
        assert plans[-1].width < 320
        down_bps = [plan.bitrate_bps for plan in plans[before:]]
        assert down_bps == sorted(down_bps, reverse=True)
        assert len(down_bps) <= 4

        lowest_bps = plans[-1].bitrate_bps
        link.rate_bps = 1e9
        await pair.receive(10**6, lambda: plans[-1].bitrate_bps > lowest_bps)


async def test_answers_do_not_fill_a_link_that_is_too_narrow() -> None:
    """Where nearly all is lost, less than half as much is sent again as is sent."""
    link = Bottleneck()
    async with connect(network=link, source=NumberedTrack(noise=6)) as pair:
        await pair.receive_for(1)
        link.rate_bps = 60_000
        link.seen = link.repeated = link.lost = 0
        await pair.receive_for(5)
        assert link.lost > 0.3 * link.seen
        assert link.repeated < 0.5 * (link.seen - link.repeated)
