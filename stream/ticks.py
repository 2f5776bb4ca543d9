"""A steady beat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator


async def ticks(interval_s: float, end: asyncio.Event) -> AsyncIterator[None]:
    """Yield every so often, until ``end`` is set.

    After a time in which the loop was held up there is one tick, not all of them.
    """
    loop = asyncio.get_running_loop()
    at_s = loop.time()
    while True:
        at_s = max(at_s + interval_s, loop.time())
        try:
            async with asyncio.timeout_at(at_s):
                await end.wait()
        except TimeoutError:
            yield
        else:
            return
