"""How long the event loop is held up by one callback."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class LoopWatch:
    """The longest callback so far, in processor time of the loop's thread.

    What else runs on the machine does not count, and neither does waiting.
    """

    longest_s: float = 0.0
    culprit: str = ""
    callbacks: int = 0


@contextmanager
def watched_loop() -> Iterator[LoopWatch]:
    """Measure every callback and every step of a task in a block.

    What was loaded before is kept from the garbage collector, as the server keeps it.
    """
    watch = LoopWatch()
    run = asyncio.Handle._run

    def run_measured(handle: asyncio.Handle) -> None:
        since_s = time.thread_time()
        run(handle)
        took_s = time.thread_time() - since_s
        watch.callbacks += 1
        if took_s > watch.longest_s:
            watch.longest_s, watch.culprit = took_s, repr(handle)

    gc.collect()
    gc.freeze()
    asyncio.Handle._run = run_measured  # type: ignore[method-assign]
    try:
        yield watch
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]
        gc.unfreeze()
