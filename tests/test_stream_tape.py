"""A tape and its times: even, true, and never in anybody's way."""

from __future__ import annotations

import asyncio
import threading
import time
from itertools import pairwise

import av
import numpy as np
import pytest
from peers import DEADLINE_S

from pipeline.engines import Size
from stream.errors import TapeEnded
from stream.opus import to_duration_s
from stream.tape import MAX_WAITING_PICTURES, Tape, TapedPicture
from stream.tape_encoder import TapedPacket
from stream.timeline import Timeline

STEP_S = 1 / 90_000


class Reader:
    """Keeps what it is given; can be held up in the middle of it."""

    def __init__(self, from_s: float = 0.0, *, keeps_size: bool = False) -> None:
        self.from_s = from_s
        self.keeps_size = keeps_size
        self.sizes: list[Size] = []
        self.packets: list[TapedPacket] = []
        self.ends: list[str] = []
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.taken = threading.Semaphore(0)

    def begin(self, size: Size) -> None:
        self.sizes.append(size)

    def take(self, packet: TapedPacket) -> None:
        self.packets.append(packet)
        self.taken.release()
        assert self.goes_on.wait(DEADLINE_S)

    def end(self, why: str) -> None:
        self.ends.append(why)

    def await_packets(self, count: int) -> None:
        for _ in range(count):
            assert self.taken.acquire(timeout=DEADLINE_S)


def picture(at_s: float, size: tuple[int, int] = (64, 48)) -> TapedPicture:
    frame = av.VideoFrame.from_ndarray(np.zeros((size[1], size[0], 3), np.uint8), "rgb24")
    return TapedPicture(frame, at_s, at_s)


async def test_a_reader_that_is_slow_costs_the_oldest_pictures_alone() -> None:
    """Putting never waits; with no room the oldest go and are counted, the newest stay."""
    tape, reader = Tape("test"), Reader()
    tape.add(reader).result(DEADLINE_S)
    reader.goes_on.clear()
    tape.put_picture(picture(0.0))
    reader.await_packets(1)
    begun_s = time.perf_counter()
    for number in range(1, 101):
        tape.put_picture(picture(number / 30))
    assert time.perf_counter() - begun_s < 1
    assert tape.dropped == 100 - MAX_WAITING_PICTURES
    reader.goes_on.set()
    tape.end()
    assert await tape.ended(DEADLINE_S)
    assert reader.ends == [""]
    assert len(reader.packets) == 1 + MAX_WAITING_PICTURES
    assert reader.packets[-1].at_s == pytest.approx(100 / 30)
    with pytest.raises(TapeEnded):
        tape.add(Reader()).result(DEADLINE_S)


async def test_who_comes_later_gets_a_key_frame_of_its_own_time() -> None:
    """Each reader begins at a key frame, and not with a picture from before its beginning."""
    tape, first, late = Tape("test"), Reader(), Reader(from_s=1.0)
    tape.add(first).result(DEADLINE_S)
    tape.put_picture(picture(0.1))
    first.await_packets(1)
    tape.add(late).result(DEADLINE_S)
    for at_s in (0.5, 0.9, 1.1, 1.2):
        tape.put_picture(picture(at_s))
    first.await_packets(4)
    late.await_packets(2)
    assert [packet.is_key_frame for packet in late.packets] == [True, False]
    assert late.packets[0].at_s == pytest.approx(1.1)
    assert [packet.is_key_frame for packet in first.packets] == [True, False, False, True, False]
    tape.remove(late).result(DEADLINE_S)
    tape.remove(late).result(DEADLINE_S)
    assert (first.ends, late.ends) == ([], [""])
    tape.end()
    assert await tape.ended(DEADLINE_S)


async def test_only_who_does_not_mind_gets_another_size() -> None:
    """A larger picture begins the tape anew, a smaller one is fitted; a file keeps its size."""
    tape, ring, file = Tape("test"), Reader(), Reader(keeps_size=True)
    tape.add(ring).result(DEADLINE_S)
    for at_s, size in ((0.1, (64, 48)), (0.2, (32, 24)), (0.3, (128, 96))):
        tape.put_picture(picture(at_s, size))
    ring.await_packets(3)
    assert ring.sizes == [Size(64, 48), Size(128, 96)]
    assert [packet.is_key_frame for packet in ring.packets] == [True, False, True]
    tape.add(file).result(DEADLINE_S)
    for at_s, size in ((0.4, (128, 96)), (0.5, (256, 192)), (0.6, (48, 64))):
        tape.put_picture(picture(at_s, size))
    file.await_packets(3)
    assert file.sizes == [Size(128, 96)]
    assert ring.sizes == [Size(64, 48), Size(128, 96)]
    tape.end()
    assert await tape.ended(DEADLINE_S)


async def test_a_tape_that_fails_tells_its_readers() -> None:
    """An error ends the tape, not the process; who asks afterwards is answered."""
    tape, reader = Tape("test"), Reader()
    tape.add(reader).result(DEADLINE_S)
    # x264 knows no such size.
    tape.put_picture(picture(0.1, (17_000, 2)))
    assert await tape.ended(DEADLINE_S)
    assert reader.ends == ["the server made a mistake; its log says more"]
    with pytest.raises(TapeEnded):
        await asyncio.wrap_future(tape.call(lambda: None))
    tape.put_picture(picture(0.2))


async def test_jobs_that_were_given_up_do_not_pile_up() -> None:
    """While a tape hangs only what somebody waits for is kept; the rest is never done."""
    tape, go_on, done = Tape("test"), threading.Event(), []
    hanging = tape.call(go_on.wait)
    for number in range(100):
        tape.call(lambda number=number: done.append(number)).cancel()
    last = tape.call(lambda: done.append(100))
    assert len(tape._jobs) <= 3
    go_on.set()
    last.result(DEADLINE_S)
    assert hanging.result(DEADLINE_S)
    assert done == [100]
    tape.end()
    assert await tape.ended(DEADLINE_S)


def place(timeline: Timeline, times: list[tuple[float, float]]) -> list[float]:
    placed = [timeline.place(own_s, arrived_s, STEP_S) for own_s, arrived_s in times]
    assert all(before < after for before, after in pairwise(placed))
    return placed


def test_times_are_as_even_as_the_senders() -> None:
    """A network that wavers by 15 ms leaves every distance as it was sent."""
    rng = np.random.default_rng(0)
    times = [(n / 30, 500 + n / 30 + float(rng.uniform(0, 0.015))) for n in range(300)]
    placed = place(Timeline(), times)
    assert np.diff(placed[60:]) == pytest.approx(1 / 30, abs=1e-9)
    assert placed[-1] == pytest.approx(times[-1][1], abs=0.030)


def test_a_clock_that_drifts_is_followed() -> None:
    """After an hour of a clock that is a ten-thousandth slow, times are true to 40 ms."""
    timeline = Timeline()
    for number in range(3600 * 5):
        arrived_s = number / 5
        at_s = timeline.place(arrived_s * (1 - 1e-4), arrived_s, STEP_S)
    assert abs(at_s - arrived_s) <= 0.040


def test_a_clock_that_begins_anew_is_followed_at_once() -> None:
    """A leap of the sender's clock, either way, is none of the file's."""
    times = [(n / 30, n / 30) for n in range(100)]
    times += [(7000 + n / 30, n / 30) for n in range(100, 200)]
    times += [(n / 30 - 90, n / 30) for n in range(200, 300)]
    assert place(Timeline(), times) == pytest.approx([arrived for _, arrived in times], abs=1e-6)


def test_a_borrowed_time_says_nothing_of_the_clock() -> None:
    """A held picture that is shown with a later one's time moves nothing."""
    timeline = Timeline()
    place(timeline, [(n / 30, 10 + n / 30) for n in range(60)])
    for number in range(60, 120):
        at_s = timeline.place(number / 30, 12.0, STEP_S, is_own=False)
        assert at_s == pytest.approx(10 + number / 30)
    assert Timeline().place(1.0, 9.0, STEP_S, is_own=False) == 9.0


@pytest.mark.parametrize(
    ("first_bytes", "ms"),
    [
        (b"\xfc\x00", 20),  # CELT, one frame
        (b"\xe3\x03", 7.5),  # CELT of 2.5 ms, three frames
        (b"\x18\x00", 60),  # SILK, one frame
        (b"\x09\x00", 40),  # SILK of 20 ms, two frames
        (b"\x68\x00", 20),  # both, one frame of 20 ms
        (b"\x63", 0),  # cut off
        (b"", 0),
    ],
)
def test_a_packet_tells_how_long_it_sounds(first_bytes: bytes, ms: float) -> None:
    """An Opus packet's first byte or two tell its length (RFC 6716, section 3.1)."""
    assert to_duration_s(first_bytes) == pytest.approx(ms / 1000)
