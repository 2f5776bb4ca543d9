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
    longest_collection_s: float = 0.0
    """Of the garbage collector, which is not counted with the callback that it met."""
    collecting_s: float = 0.0
    """In the callback at work."""


@contextmanager
def watched_loop() -> Iterator[LoopWatch]:
    """Measure every callback and every step of a task in a block.

    What was loaded before is kept from the garbage collector, as the server keeps it.
    """
    watch = LoopWatch()
    run = asyncio.Handle._run

    def run_measured(handle: asyncio.Handle) -> None:
        callback = handle._callback  # type: ignore[attr-defined]
        since_s = time.thread_time()
        run(handle)
        took_s = time.thread_time() - since_s - watch.collecting_s
        watch.collecting_s = 0.0
        watch.callbacks += 1
        if took_s > watch.longest_s:
            # Of a step of a task, the task.
            watch.longest_s = took_s
            watch.culprit = repr(getattr(callback, "__self__", callback))

    def note_collection(phase: str, info: dict[str, int]) -> None:
        nonlocal began_s
        if phase == "start":
            began_s = time.thread_time()
        else:
            took_s = time.thread_time() - began_s
            watch.collecting_s += took_s
            watch.longest_collection_s = max(watch.longest_collection_s, took_s)

    began_s = 0.0
    gc.collect()
    gc.freeze()
    gc.callbacks.append(note_collection)
    asyncio.Handle._run = run_measured  # type: ignore[method-assign]
    try:
        yield watch
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]
        gc.callbacks.remove(note_collection)
        gc.unfreeze()
