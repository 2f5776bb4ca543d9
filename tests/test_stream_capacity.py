"""How many sessions an engine is enough for."""

from __future__ import annotations

import pytest

from pipeline.engines import Size
from stream.capacity import Capacity, StepTimes
from stream.delay_target import DelayTarget, make_ladder
from stream.status import EngineInfo

FULL, SMALL = Size(320, 240), Size(160, 120)


def to_info(max_batch: int = 1) -> EngineInfo:
    return EngineInfo("colour", "test", "colours", FULL, (), max_batch)


def steps(*measured: tuple[Size, int, float]) -> StepTimes:
    times = StepTimes()
    for size, frames, duration_s in measured:
        times.note("colours", size, frames, duration_s)
    return times


def test_time_of_a_batch_is_not_guessed_too_short() -> None:
    """What was not measured grows with the frames from below, and does not shrink from above."""
    times = steps((FULL, 2, 0.03), (FULL, 2, 0.05), (FULL, 2, 0.04))
    assert times.batch_s("colours", FULL, 2) == pytest.approx(0.04)
    assert times.batch_s("colours", FULL, 4) == pytest.approx(0.08)
    assert times.batch_s("colours", FULL, 1) == pytest.approx(0.04)
    assert times.batch_s("colours", SMALL, 2) is None
    assert times.batch_s("others", FULL, 2) is None


def test_times_are_bounded() -> None:
    """What was measured longest ago is forgotten."""
    times = StepTimes()
    for number in range(1000):
        times.note(f"model {number}", FULL, 1, 0.01)
    assert times.batch_s("model 999", FULL, 1) == 0.01
    assert times.batch_s("model 900", FULL, 1) is None


@pytest.mark.parametrize(
    ("max_batch", "rates_hz", "is_enough"),
    [
        (1, [30.0], True),  # one is always taken
        (1, [30.0] * 2, True),  # 25 frames a second for two of at least 10
        (1, [30.0] * 3, False),
        (1, [30.0, 30.0, 5.0], True),  # who sends 5 a second takes 5
        (1, [30.0, 30.0, 6.0], False),
        (4, [30.0] * 5, True),  # four at once take 80 ms: 50 frames a second
        (4, [30.0] * 6, False),
    ],
)
def test_everybody_stays_above_the_least_rate(
    max_batch: int, rates_hz: list[float], is_enough: bool
) -> None:
    """The engine's frames are shared; each session needs 10 a second, or all its camera's."""
    measured = steps((FULL, 1, 0.04), (FULL, 4, 0.08))
    assert Capacity(measured, 10).suffices(to_info(max_batch), rates_hz) is is_enough
    assert Capacity(measured, 0).suffices(to_info(max_batch), rates_hz)
    assert Capacity(StepTimes(), 10).suffices(to_info(max_batch), rates_hz)


def test_smaller_size_makes_room() -> None:
    """Where the model may go down to another size, what that size can do counts."""
    measured = steps((FULL, 1, 0.04))
    capacity = Capacity(measured, 10)
    assert not capacity.has_room(to_info(), [30.0] * 10)
    capacity.smaller = (SMALL,)
    assert capacity.has_room(to_info(), [30.0] * 10)  # a quarter of the pixels: 100 a second
    assert not capacity.has_room(to_info(), [30.0] * 11)
    measured.note("colours", SMALL, 1, 0.02)
    assert not capacity.has_room(to_info(), [30.0] * 6)  # measured counts for more


def test_ladder_says_what_is_left_below() -> None:
    """Only sizes make the model faster; fewer of the camera's frames do not count."""
    target = DelayTarget(120, make_ladder(FULL, (SMALL,)))
    assert (target.smaller_sizes(), target.smaller_step()) == ((SMALL,), 1)
    target.moved(1, 0.0)
    assert (target.smaller_sizes(), target.smaller_step()) == ((), None)
