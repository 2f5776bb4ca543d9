"""Waiting for news."""

from __future__ import annotations

import asyncio

import pytest

from stream.errors import ServerFull
from stream.news import News


async def test_who_waits_is_let_go_when_it_is_there_and_not_before() -> None:
    """A word that changes nothing lets nobody go."""
    news, shown = News("tests", 60.0, 8), [0]
    asked: list[int] = []

    def is_there() -> bool:
        asked.append(shown[0])
        return shown[0] == 2

    waiting = asyncio.create_task(news.until(is_there))
    for number in range(3):
        await asyncio.wait([waiting], timeout=0)
        shown[0] = number
        assert not waiting.done()
        news.tell()
    await waiting
    assert asked[-1] == 2
    assert len(asked) >= 3


async def test_who_waits_for_long_is_let_go() -> None:
    """After its time a wait is over without news."""
    await News("tests", 0.01, 8).until(lambda: False)


async def test_crowd_is_refused_and_room_comes_back() -> None:
    """One too many gets a sentence; when the others have gone there is room."""
    news = News("tests", 60.0, 2)
    waiting = [asyncio.create_task(news.until(lambda: False)) for _ in range(2)]
    await asyncio.wait(waiting, timeout=0)
    with pytest.raises(ServerFull, match="2 wait for news of tests already"):
        await news.until(lambda: False)
    waiting[0].cancel()
    await asyncio.wait([waiting[0]])
    third = asyncio.create_task(news.until(lambda: False))
    await asyncio.wait([third], timeout=0)
    news.close()
    await asyncio.gather(waiting[1], third)


async def test_nobody_waits_after_the_end() -> None:
    """Who comes when all were sent away goes at once."""
    news = News("tests", 60.0, 8)
    news.close()
    await news.until(lambda: False)
