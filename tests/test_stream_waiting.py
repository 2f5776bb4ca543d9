"""The waiting list: fair order, places that move, and who loses theirs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from engines import ColourEngine, SlowEngine
from offers import obs
from peers import DEADLINE_S, Serving, flat, serving
from test_stream_signaling import make_offer

from stream import waiting
from stream.config import ServerConfig
from stream.errors import ServerFull, SessionUnknown
from stream.exposure import Exposure
from stream.waiting import WaitingList, guess_remaining_s

ORANGE = (200, 120, 40)
SDP = {"Content-Type": "application/sdp"}


class Doors:
    """Stands for a server with some free sessions."""

    def __init__(self, free: int = 0) -> None:
        self.free = free
        self.remaining_s: list[float] = [60.0, 100.0]

    def find_obstacle(self, reserved: int) -> str | None:
        return None if self.free > reserved else "all sessions are open"


class TimedList(WaitingList):
    """Reads a clock that the test sets."""

    at_s = 0.0

    def _now_s(self) -> float:
        return self.at_s


@pytest.fixture
def doors() -> Doors:
    return Doors()


@pytest.fixture
def line(doors: Doors) -> TimedList:
    return TimedList(3, doors.find_obstacle, lambda: doors.remaining_s)


def test_first_come_first_served(line: TimedList, doors: Doors) -> None:
    """Each free session is offered to the next in line, and kept for them."""
    first, second, third = (line.join() for _ in range(3))
    line.look()
    assert [place.offered_s for place in (first, second, third)] == [None] * 3
    doors.free = 2
    line.look()
    assert [place.offered_s for place in (first, second, third)] == [0.0, 0.0, None]
    with pytest.raises(ServerFull, match="all sessions are open"):
        line.admit(third.id)  # its turn has not come
    line.admit(second.id)
    doors.free = 1
    line.look()
    assert third.offered_s is None  # the free one is the first's
    line.admit(first.id)
    with pytest.raises(ServerFull):
        line.admit(first.id)  # a place is good for one session
    assert line.to_json(third)["place"] == 1


def test_nobody_overtakes_the_line(line: TimedList, doors: Doors) -> None:
    """Who has not waited is refused while others do, though there is room."""
    doors.free = 1
    line.admit(None)
    line.join()
    with pytest.raises(ServerFull, match="1 wait already, and come first") as refused:
        line.admit(None)
    assert refused.value.extensions == {"waiting": "/waiting"}
    with pytest.raises(ServerFull):
        line.admit("made up")


def test_list_is_bounded(line: TimedList) -> None:
    """One more than it holds is refused, with a time to come again."""
    for _ in range(3):
        line.join()
    with pytest.raises(ServerFull, match="3 wait already") as refused:
        line.join()
    # Two sessions end in 60 and 100 s, one more 60 s into the second round.
    assert refused.value.retry_after_s == waiting.LONGEST_RETRY_S
    assert refused.value.extensions == {}


def test_place_that_is_not_taken_goes_to_the_next(line: TimedList, doors: Doors) -> None:
    """An offer stands for a time; then its place is lost."""
    first, second = line.join(), line.join()
    doors.free = 1
    line.look()
    line.at_s = waiting.TAKE_S
    first.seen_s = second.seen_s = line.at_s
    line.look()
    assert (first.offered_s, second.offered_s) == (0.0, None)
    line.at_s += 0.1
    line.look()
    assert second.offered_s == line.at_s
    with pytest.raises(ServerFull):
        line.admit(first.id)


def test_who_leaves_loses_the_place(line: TimedList) -> None:
    """So does who says so, and who does not ask any more; those behind move up."""
    first, second, third = (line.join() for _ in range(3))
    line.leave(first.id)
    with pytest.raises(SessionUnknown):
        line.leave(first.id)
    assert line.to_json(second)["place"] == 1
    third.listening = 1  # has a question open
    line.at_s = waiting.GONE_S + 0.1
    line.look()
    assert line.to_json(third) == {
        "place": 1,
        "of": 1,
        "estimate_s": 60,
        "is_offered": False,
        "version": 5,
    }


def test_estimate_goes_with_the_place_and_the_sessions(line: TimedList, doors: Doors) -> None:
    """The n-th place waits for the n-th session to end, then for the next round."""
    places = [line.join() for _ in range(3)]
    assert [line.to_json(place)["estimate_s"] for place in places] == [60, 100, 160]
    doors.remaining_s = [10.0, 3.2]
    assert [line.to_json(place)["estimate_s"] for place in places] == [4, 10, 14]


@pytest.mark.parametrize(
    ("age_s", "ended_s", "longest_s", "guess_s"),
    [
        (0.0, [], 0.0, waiting.USUAL_S),
        (20.0, [60.0, 100.0, 70.0], 0.0, 50.0),
        (500.0, [100.0], 0.0, 25.0),  # it has outlived the others already
        (50.0, [100.0], 60.0, 10.0),
    ],
)
def test_guess_at_what_remains(
    age_s: float, ended_s: list[float], longest_s: float, guess_s: float
) -> None:
    """A session is taken to last as long as the others did, and no longer than it may."""
    assert guess_remaining_s(age_s, ended_s, longest_s) == guess_s


class Client:
    """Waits in line at a real server."""

    def __init__(self, server: Serving) -> None:
        self.server = server
        self.url = ""
        self.news: dict[str, Any] = {}

    async def join(self) -> int:
        async with self.server.http.post(f"{self.server.base}/waiting") as response:
            self.news = await response.json(content_type=None)
            self.url = self.server.base + response.headers.get("Location", "")
            return response.status

    async def ask(self) -> int:
        """Wait for news."""
        query = {"after": str(self.news["version"])}
        async with self.server.http.get(self.url, params=query) as response:
            self.news = await response.json(content_type=None)
            return response.status

    async def until(self, **wanted: object) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not wanted.items() <= self.news.items():
                assert await self.ask() == 200

    async def leave(self) -> None:
        async with self.server.http.delete(self.url) as response:
            assert response.status == 200


@pytest.fixture
async def server() -> AsyncIterator[Serving]:
    exposure = Exposure(max_waiting=3)
    async with serving(ColourEngine, ServerConfig(max_sessions=1, exposure=exposure)) as running:
        yield running


async def test_clients_come_in_by_turns(server: Serving) -> None:
    """Over HTTP: places move as others leave, and the first in line takes the free session."""
    peer = await server.connect(flat(ORANGE))
    async with server.http.post(
        f"{server.base}/sessions", data=await make_offer(), headers=SDP
    ) as response:
        assert response.status == 503
        assert (await response.json(content_type=None))["waiting"] == "/waiting"
    first, second, third = clients = [Client(server) for _ in range(3)]
    assert [await client.join() for client in clients] == [201] * 3
    assert [client.news["place"] for client in clients] == [1, 2, 3]
    assert await Client(server).join() == 503
    await first.leave()
    await second.until(place=1)
    await third.until(place=2, of=2)
    async with server.http.delete(server.base + peer.location) as response:
        assert response.status == 200
    await second.until(is_offered=True)
    # A program that cannot wait in line comes after those who do.
    async with server.http.post(f"{server.base}/whip", data=obs(), headers=SDP) as response:
        assert response.status == 503
        assert 5 <= int(response.headers["Retry-After"]) <= 60
    place = second.url.rpartition("/")[2]
    await server.connect(flat(ORANGE), f"?place={place}")
    await third.until(place=1, of=1, is_offered=False)
    assert await second.ask() == 404
    assert len(server.sessions) == 1


async def test_server_that_stops_sends_the_line_home(server: Serving) -> None:
    """Who waits for news is answered at once when the server stops."""
    await server.connect(flat(ORANGE))
    client = Client(server)
    await client.join()
    asking = asyncio.create_task(client.ask())
    await asyncio.sleep(0)  # let the question leave
    server.sessions.waiting.close("the server is stopping")
    assert await asking == 503
    assert client.news["detail"] == "the server is stopping"


async def test_session_is_taken_while_all_stay_above_the_least_rate() -> None:
    """A third session would get less than 2 frames a second of not quite 6: it waits."""
    config = ServerConfig(is_size_fixed=True, exposure=Exposure(min_fps=2))
    async with serving(lambda: SlowEngine(0.17, max_batch=1), config) as server:
        for _ in range(2):
            peer = await server.connect(flat(ORANGE))
            await peer.until_frames(4)
        offer = await make_offer()
        async with server.http.post(f"{server.base}/sessions", data=offer, headers=SDP) as response:
            problem = await response.json(content_type=None)
        assert response.status == 503
        assert problem["detail"] == (
            "2 sessions are open, and with one more somebody would get less than 2 frames a second"
        )
        await peer.until_frames(2)
