"""The one-place slot."""

from __future__ import annotations

import asyncio

import pytest

from stream.latest import Latest, Slot, SlotClosed


def test_slot_keeps_the_newest_and_counts_the_rest() -> None:
    """A newer item replaces an untaken one, which is counted."""
    slot: Slot[int] = Slot()
    assert slot.take() is None
    for item in (1, 2, 3):
        slot.put(item)
    assert slot.take() == 3
    assert slot.take() is None
    assert slot.dropped == 2


def test_slot_counts_what_is_cleared() -> None:
    """Clearing drops the item that is there, and none that is not."""
    slot: Slot[int] = Slot()
    slot.clear()
    slot.put(1)
    slot.clear()
    assert (slot.take(), slot.dropped) == (None, 1)


async def test_get_waits_for_the_next_item() -> None:
    """A consumer that comes first gets the item that comes later."""
    latest: Latest[int] = Latest()
    consumer = asyncio.create_task(latest.get())
    await asyncio.sleep(0)  # let the consumer wait
    latest.put(7)
    assert await consumer == 7
    assert latest.dropped == 0


async def test_cancelled_get_loses_nothing() -> None:
    """An item that comes after a cancelled wait is there for the next."""
    latest: Latest[int] = Latest()
    consumer = asyncio.create_task(latest.get())
    await asyncio.sleep(0)  # let the consumer wait
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer
    latest.put(7)
    assert await latest.get() == 7


async def test_close_ends_a_wait_and_every_later_one() -> None:
    """After close, get raises and put drops."""
    latest: Latest[int] = Latest()
    consumer = asyncio.create_task(latest.get())
    await asyncio.sleep(0)  # let the consumer wait
    latest.close()
    latest.close()
    with pytest.raises(SlotClosed):
        await consumer
    latest.put(1)
    assert latest.dropped == 1
    with pytest.raises(SlotClosed):
        await latest.get()


async def test_put_from_another_thread() -> None:
    """A thread hands over through call_soon_threadsafe, and the newest wins."""
    latest: Latest[int] = Latest()
    loop = asyncio.get_running_loop()

    def produce() -> None:
        for item in range(100):
            loop.call_soon_threadsafe(latest.put, item)

    await asyncio.to_thread(produce)
    async with asyncio.timeout(5):
        while await latest.get() != 99:
            pass
