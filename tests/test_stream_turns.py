"""Who is served next."""

from __future__ import annotations

import threading
import time

import pytest
from av import VideoFrame

from stream import turns
from stream.controls import Controls
from stream.errors import EngineNotReady, ServerFull
from stream.feed import ArrivedFrame, Feed, Finished
from stream.turns import MAX_PICTURES, Request, Turns


class NoOwner:
    """Owns feeds that are never rendered."""

    def deliver(self, finished: Finished) -> None:
        raise AssertionError("nothing is rendered here")

    def notice(self, level: str, detail: str) -> None:
        raise AssertionError("nothing is rendered here")

    def prompt_replaced(self, asked: str, used: str) -> None:
        raise AssertionError("nothing is rendered here")

    def engine_changed(self) -> None:
        raise AssertionError("nothing is rendered here")


def arrived(number: int) -> ArrivedFrame:
    return ArrivedFrame(VideoFrame(16, 16, "yuv420p"), number, time.perf_counter())


def make(count: int) -> tuple[Turns, list[Feed]]:
    board = Turns()
    assert board.claim("engine")
    feeds = [Feed(NoOwner(), Controls(seed=index)) for index in range(count)]
    for feed in feeds:
        board.attach(feed)
    return board, feeds


def take_seeds(board: Turns, max_batch: int) -> list[int]:
    work = board.take(max_batch)
    assert isinstance(work, list)
    return [share.controls.seed for share in work]


def test_turns_are_fair() -> None:
    """With more sessions than places in a batch, each waits for as many batches as the next."""
    board, feeds = make(5)
    served: list[int] = []
    for number in range(5):
        for feed in feeds:
            board.submit(feed, arrived(number))
        served += take_seeds(board, 2)
    assert served == [0, 1, 2, 3, 4] * 2


def test_newest_frame_is_taken_and_older_ones_counted() -> None:
    """A frame that waits is replaced by the next."""
    board, (feed,) = make(1)
    for number in range(4):
        board.submit(feed, arrived(number))
    work = board.take(4)
    assert isinstance(work, list)
    assert [share.arrived.number for share in work] == [3]
    assert feed.inbox.dropped == 3


def test_sessions_without_a_frame_do_not_hold_up_others() -> None:
    """A batch has those sessions that have a frame."""
    board, feeds = make(4)
    board.submit(feeds[3], arrived(0))
    board.submit(feeds[1], arrived(0))
    assert take_seeds(board, 4) == [1, 3]


def test_pictures_come_last() -> None:
    """A single picture goes after live frames."""
    board, (feed,) = make(1)
    picture = board.ask_patiently(lambda engine: "picture")
    board.submit(feed, arrived(0))
    order = [board.take(4) for _ in range(2)]
    assert isinstance(order[0], list)
    assert isinstance(order[1], Request)
    assert order[1].answer is picture


def test_patience_of_a_picture_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that has waited long enough gets one turn, then live frames go on."""
    monkeypatch.setattr(turns, "PICTURE_PATIENCE_S", 0.0)
    board, (feed,) = make(1)
    board.ask_patiently(lambda engine: "picture")
    board.submit(feed, arrived(0))
    assert isinstance(board.take(4), Request)
    assert isinstance(board.take(4), list)


def test_full_lane_refuses() -> None:
    """The lane of pictures is bounded."""
    board, _ = make(0)
    for _ in range(MAX_PICTURES):
        board.ask_patiently(lambda engine: None)
    with pytest.raises(ServerFull) as refused:
        board.ask_patiently(lambda engine: None)
    assert refused.value.retry_after_s == 1


def test_close_answers_who_waits_and_wakes_the_engine() -> None:
    """Closing lets an idle engine leave, and tells everybody whose request waits."""
    board, _ = make(0)
    taken: list[object] = []
    idle = threading.Thread(target=lambda: taken.append(board.take(4)))
    idle.start()
    board.close()
    idle.join(5)
    assert taken == [None]
    with pytest.raises(EngineNotReady):
        board.ask_patiently(lambda engine: None)
    assert board.claim("another") is False


def test_heir_waits_for_the_engine_at_work() -> None:
    """A new engine takes over when the old one has left, not before."""
    board, _ = make(0)
    claimed = threading.Event()

    def claim() -> None:
        assert board.claim("heir")
        claimed.set()

    heir = threading.Thread(target=claim)
    heir.start()
    assert board.take(4) is None
    assert not claimed.is_set()
    board.release("engine")
    assert claimed.wait(5)
    heir.join(5)
