"""How long a session may last, and how long it may be there for nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

WARNING_S = 60.0
"""How long before its end a session is told of it."""


class Mortal(Protocol):
    """A session, as far as its end is concerned."""

    def notice(self, level: str, detail: str) -> None:
        """Tell the peer one sentence, where there is a way to."""

    def dismiss(self, detail: str) -> None:
        """Tell the peer why it has to go, then end."""


@dataclass(frozen=True, slots=True)
class Idleness:
    """Since when a session is of no use, and why."""

    since_s: float
    """``time.perf_counter()``."""
    why: str
    """Such as ``"the camera has sent no picture"``."""


async def end_at_age(session: Mortal, limit_s: float) -> None:
    """Dismiss a session when it has lasted so long; tell it a minute before. 0: never."""
    if limit_s == 0:
        return
    warning_s = min(WARNING_S, limit_s / 2)
    await asyncio.sleep(limit_s - warning_s)
    session.notice(
        "warning",
        f"This session ends in {to_words(warning_s)}: {to_words(limit_s)} is the longest here.",
    )
    await asyncio.sleep(warning_s)
    session.dismiss(f"This session has ended: {to_words(limit_s)} is the longest here.")


async def end_when_idle(
    session: Mortal, find_idleness: Callable[[], Idleness], limit_s: float
) -> None:
    """Dismiss a session that was of no use for so long. 0: never."""
    while limit_s > 0:
        idleness = find_idleness()
        left_s = idleness.since_s + limit_s - time.perf_counter()
        if left_s <= 0:
            session.dismiss(f"This session has ended: {idleness.why} for {to_words(limit_s)}.")
            return
        await asyncio.sleep(left_s)


def find_idleness(seen_s: float, hidden_s: float | None, watched_s: float) -> Idleness:
    """Return what a camera's session has been idle by for longest.

    Args:
        seen_s: when its last frame came.
        hidden_s: since when its own page shows nobody the picture; None: it does.
        watched_s: when somebody else last watched it, or it was recorded.
    """
    blind = Idleness(seen_s, "the camera has sent no picture")
    if hidden_s is None:
        return blind
    alone_s = max(hidden_s, watched_s)
    if seen_s < alone_s:
        return blind
    return Idleness(alone_s, "its page was hidden and nobody watched it")


def to_words(duration_s: float) -> str:
    """Return a duration in seconds, or from two minutes on in minutes."""
    if duration_s >= 120:
        return f"{duration_s / 60:g} minutes"
    return f"{duration_s:g} s"
