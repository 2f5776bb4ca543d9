"""What one session's frames go through on their way to everybody who watches."""

from __future__ import annotations

import asyncio
import time
from fractions import Fraction

import pytest
from av import VideoFrame

from stream.broadcast import Broadcast
from stream.feed import ArrivedFrame, Finished
from stream.latest import SlotClosed

TIME_BASE = Fraction(1, 90000)


def finished(number: int, pts: int) -> Finished:
    frame = VideoFrame(16, 16, "yuv420p")
    frame.pts, frame.time_base = pts, TIME_BASE
    return Finished(ArrivedFrame(frame, number, time.perf_counter()), frame, True)


async def test_everybody_gets_every_frame_and_the_newest_at_once() -> None:
    """Each subscriber takes at its own pace; who comes late begins with the newest frame."""
    broadcast = Broadcast()
    first, slow = broadcast.subscribe(), broadcast.subscribe()
    for number in range(3):
        broadcast.put(finished(number, number * 3000))
        assert (await first.get()).arrived.number == number
    assert (await slow.get()).arrived.number == 2
    assert (first.dropped, slow.dropped) == (0, 2)
    assert (await broadcast.subscribe().get()).arrived.number == 2


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ((0, 3000, 9000, 2**33), (0, 3000, 9000, 2**33)),
        ((-500, 2500), (3000 - 1, 6000 - 1)),
        ((9000, 9000, 12000), (9000, 12000, 15000)),
        ((9000, 0, 3000), (9000, 12000, 15000)),
    ],
)
async def test_pts_never_goes_back(given: tuple[int, ...], sent: tuple[int, ...]) -> None:
    """Growing pts pass; after a negative, repeated or earlier one, time goes on from the last."""
    broadcast = Broadcast()
    slot = broadcast.subscribe()
    got = []
    for number, pts in enumerate(given):
        broadcast.put(finished(number, pts))
        got.append((await slot.get()).frame.pts)
    assert tuple(got) == sent


async def test_end_is_told_to_everybody() -> None:
    """When the session ends, who waits for a frame and who waits for the end both learn it."""
    broadcast = Broadcast()
    slot = broadcast.subscribe()
    waiting = asyncio.gather(slot.get(), broadcast.ended(), return_exceptions=True)
    await asyncio.sleep(0)  # let both wait
    broadcast.close()
    broadcast.close()
    async with asyncio.timeout(5):
        outcomes = await waiting
    assert isinstance(outcomes[0], SlotClosed)
    assert outcomes[1] is None


async def test_who_comes_after_it_was_forgotten_gets_no_old_picture() -> None:
    """A forgotten picture is for nobody who comes later; the next one is."""
    broadcast = Broadcast()
    broadcast.put(finished(0, 0))
    broadcast.forget()
    slot = broadcast.subscribe()
    broadcast.put(finished(1, 3000))
    assert (await slot.get()).arrived.number == 1
    assert slot.dropped == 0


async def test_who_leaves_gets_nothing_more() -> None:
    """After unsubscribing, a slot is closed and the others go on."""
    broadcast = Broadcast()
    gone, stays = broadcast.subscribe(), broadcast.subscribe()
    broadcast.unsubscribe(gone)
    broadcast.unsubscribe(gone)
    broadcast.put(finished(0, 0))
    with pytest.raises(SlotClosed):
        await gone.get()
    assert (await stays.get()).arrived.number == 0
