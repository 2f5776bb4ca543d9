"""The waiting list: who comes next when a session is free, and when that may be."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from stream.errors import ServerFull, SessionUnknown
from stream.news import News

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
POLL_S = 5.0
"""A question for news is answered after this time at the latest; estimates move so often."""
MOST_ASKING = 64
"""Questions for news that are open at once, or twice as many as may wait."""
GONE_S = 10.0
"""Who has not asked for so long has left."""
TAKE_S = 15.0
"""A place that is offered and not taken goes to the next."""
USUAL_S = 300.0
"""How long a session is taken to last while none has ended yet."""
SHORTEST_RETRY_S, LONGEST_RETRY_S = 5, 60


@dataclass(slots=True, eq=False)
class Place:
    """Somebody's place in the line."""

    seen_s: float
    """When its owner last asked; on the event loop's clock."""
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    offered_s: float | None = None
    """Since when a session is kept free for it; None: it waits."""
    listening: int = 0
    """Questions for news that are open."""


class WaitingList:
    """Keeps the order; used on the event loop. Its owner runs :meth:`run` and cancels it.

    It is bounded: who comes when it is full is refused. While anybody waits, nobody else gets
    a session.
    """

    def __init__(
        self,
        max_waiting: int,
        find_obstacle: Callable[[int], str | None],
        to_remaining_s: Callable[[], Sequence[float]],
    ) -> None:
        """Make an empty list.

        Args:
            max_waiting: more are refused; 0: nobody waits.
            find_obstacle: says in one sentence why a session cannot be opened besides so many
                that are kept free; None: it can.
            to_remaining_s: for how long each open session is thought to go on.
        """
        self.max_waiting = max_waiting
        self._find_obstacle = find_obstacle
        self._to_remaining_s = to_remaining_s
        self._places: list[Place] = []
        self._version = 0
        self._news = News("the line", POLL_S, max(MOST_ASKING, 2 * max_waiting))
        self._wake = asyncio.Event()
        self._closed_because = ""
        self._closed_for_s = 0

    def __len__(self) -> int:
        return len(self._places)

    async def run(self) -> None:
        """Offer places as they become free, and strike out who has left."""
        while True:
            self._wake.clear()
            if not self._places:
                await self._wake.wait()
            self.look()
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def close(self, reason: str, retry_after_s: int = SHORTEST_RETRY_S) -> None:
        """Send everybody away, and refuse who comes. Of several reasons the first counts."""
        if not self._closed_because:
            self._closed_because, self._closed_for_s = reason, retry_after_s
        self._places.clear()
        self._tell()

    @property
    def is_closed(self) -> bool:
        """Whether nobody is taken any more."""
        return bool(self._closed_because)

    def room_changed(self) -> None:
        """Look soon: a session has ended."""
        self._wake.set()

    def admit(self, ident: str | None) -> None:
        """Let somebody open a session, and take their place off the list.

        Args:
            ident: of a place; None: they have not waited.

        Raises:
            ServerFull: there is no room, or others come first.
        """
        self.refuse_when_closed()
        place = self._find(ident) if ident is not None else None
        if place is not None and place.offered_s is not None:
            self._strike(place)
            return
        obstacle = self._find_obstacle(self._count_offered())
        if obstacle is None and self._places:
            obstacle = f"{len(self._places)} wait already, and come first"
        if obstacle is not None:
            raise self._to_refusal(obstacle)

    def join(self) -> Place:
        """Take the last place.

        Raises:
            ServerFull: the list is full.
        """
        self.refuse_when_closed()
        if len(self._places) >= self.max_waiting:
            raise ServerFull(
                f"{len(self._places)} wait already, and the waiting list holds no more",
                self.retry_after_s(),
            )
        place = Place(self._now_s())
        self._places.append(place)
        self._tell()
        self._wake.set()
        return place

    def leave(self, ident: str) -> None:
        """Give a place up.

        Raises:
            SessionUnknown: there is no such place.
        """
        self._strike(self._get(ident))

    async def news(self, ident: str, after: int | None = None) -> dict[str, object]:
        """Return how a place stands, as :meth:`to_json`; its owner stays in the line by asking.

        Args:
            ident: the place's.
            after: the version that is known; wait until there is another, 5 s at most.

        Raises:
            SessionUnknown: there is no such place, or no more.
            ServerFull: the server is stopping, or too many ask.
        """
        self.refuse_when_closed()
        place = self._get(ident)
        place.listening += 1
        try:
            await self._news.until(lambda: self._version != after or place not in self._places)
        finally:
            place.listening -= 1
            place.seen_s = self._now_s()
        self.refuse_when_closed()
        return self.to_json(self._get(ident))

    def to_json(self, place: Place) -> dict[str, object]:
        """Return a place's number, the list's length and when its turn may come."""
        number = self._places.index(place) + 1
        return {
            "place": number,
            "of": len(self._places),
            "estimate_s": 0 if place.offered_s is not None else self.estimate_s(number),
            "is_offered": place.offered_s is not None,
            "version": self._version,
        }

    def estimate_s(self, number: int) -> int:
        """Return when the turn of the place of a number may come, in whole seconds."""
        remaining_s = sorted(self._to_remaining_s())
        if not remaining_s:
            return 0
        rounds, index = divmod(number - 1, len(remaining_s))
        return math.ceil(remaining_s[index] + rounds * max(remaining_s[-1], 1.0))

    def retry_after_s(self) -> int:
        """Return when a client that cannot wait in line may try again."""
        estimate_s = self.estimate_s(len(self._places) + 1)
        return min(max(estimate_s, SHORTEST_RETRY_S), LONGEST_RETRY_S)

    def look(self) -> None:
        """Strike out who has left or has not come, and offer what is free."""
        now_s = self._now_s()
        for place in list(self._places):
            if place.offered_s is not None and now_s - place.offered_s > TAKE_S:
                logger.info("a place was offered and not taken; it goes to the next")
                self._strike(place)
            elif not place.listening and now_s - place.seen_s > GONE_S:
                self._strike(place)
        for place in self._places:
            if place.offered_s is not None:
                continue
            if self._find_obstacle(self._count_offered()) is not None:
                return
            place.offered_s = now_s
            self._tell()

    def _to_refusal(self, obstacle: str) -> ServerFull:
        refusal = ServerFull(obstacle, self.retry_after_s())
        if self.max_waiting:
            refusal.extensions = {"waiting": "/waiting"}
        return refusal

    def _count_offered(self) -> int:
        return sum(place.offered_s is not None for place in self._places)

    def _find(self, ident: str) -> Place | None:
        return next((place for place in self._places if place.id == ident), None)

    def _get(self, ident: str) -> Place:
        place = self._find(ident)
        if place is None:
            raise SessionUnknown("there is no such place in the line; its turn may have passed")
        return place

    def _strike(self, place: Place) -> None:
        self._places.remove(place)
        self._tell()
        self._wake.set()

    def _tell(self) -> None:
        self._version += 1
        self._news.tell()

    def refuse_when_closed(self) -> None:
        """Raise ServerFull when nobody is taken any more."""
        if self._closed_because:
            raise ServerFull(self._closed_because, self._closed_for_s)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()


def guess_remaining_s(age_s: float, ended_s: Sequence[float], longest_s: float) -> float:
    """Return for how long a session may go on.

    Args:
        age_s: how old it is.
        ended_s: how long sessions lasted that have ended.
        longest_s: how long one may last; 0: as long as it likes.
    """
    usual_s = median(ended_s) if ended_s else USUAL_S
    # One that has outlived the others is not about to end for that.
    guess_s = max(usual_s - age_s, usual_s / 4)
    return min(guess_s, max(longest_s - age_s, 0.0)) if longest_s else guess_s
