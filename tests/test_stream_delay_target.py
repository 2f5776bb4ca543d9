"""The decision how much the model may do, without a clock and without a model."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import pairwise

import pytest

from pipeline.config import SIZE_STEP_PX, TINY_PRESET
from pipeline.engines import Size
from stream.delay_target import (
    FIRST_PATIENCE_S,
    LONGEST_PATIENCE_S,
    UP_SHARE,
    DelayTarget,
    Effort,
    Observation,
    make_ladder,
)

LADDER = make_ladder(Size(320, 240), (Size(256, 192), Size(192, 144)))
TARGET_MS = 120.0


class Machine:
    """A made-up machine: a model whose time grows with its pixels, and all that is beside it."""

    def __init__(self, target: DelayTarget, full_ms: float, beside_ms: float = 30.0) -> None:
        self.target = target
        self.full_ms = full_ms
        self.beside_ms = beside_ms
        self.now_s = 0.0
        self.moves: list[tuple[float, int]] = []

    def observe(self) -> Observation:
        effort, full = self.target.effort, self.target.ladder[0]
        pixels = effort.size.width * effort.size.height / (full.size.width * full.size.height)
        translate_ms = self.full_ms * pixels
        interval_ms = 1000 / 30 / float(effort.share)
        wait_ms = 0.0 if translate_ms < interval_ms else interval_ms / 2
        engine_ms = wait_ms + translate_ms
        return Observation(self.beside_ms + engine_ms, engine_ms, translate_ms, 30.0)

    def run(self, seconds: int) -> DelayTarget:
        for _ in range(seconds):
            self.now_s += 1.0
            step = self.target.advise(self.observe(), self.now_s)
            if step is not None:
                self.target.moved(step, self.now_s)
                self.moves.append((self.now_s, step))
        return self.target


def test_ladder_keeps_the_aspect_and_ends_with_fewer_frames() -> None:
    """Sizes of one aspect that the model can work at come first, then shares of the frames."""
    ladder = make_ladder(TINY_PRESET.default_size, TINY_PRESET.smaller_sizes)
    assert [str(effort) for effort in ladder] == [
        "320x240",
        "256x192",
        "192x144",
        "192x144, 2 of 3 frames",
        "192x144, 1 of 2 frames",
    ]
    assert {Fraction(e.size.width, e.size.height) for e in ladder} == {Fraction(4, 3)}
    assert not any(e.size.width % SIZE_STEP_PX or e.size.height % SIZE_STEP_PX for e in ladder)
    works = [effort.work for effort in ladder]
    assert works == sorted(works, reverse=True)
    assert [str(e) for e in make_ladder(Size(512, 512), ())][0:2] == [
        "512x512",
        "512x512, 2 of 3 frames",
    ]


@pytest.mark.parametrize(
    ("share", "taken"),
    [(Fraction(1), 30), (Fraction(2, 3), 20), (Fraction(1, 2), 15)],
)
def test_share_of_the_frames_is_spread_evenly(share: Fraction, taken: int) -> None:
    """Of thirty frames the share is taken, no two gaps differing by more than a frame."""
    effort = Effort(Size(64, 48), share)
    numbers = [number for number in range(30) if effort.takes(number)]
    assert len(numbers) == taken
    gaps = {b - a for a, b in pairwise(numbers)}
    assert max(gaps) - min(gaps) <= 1


def test_fast_machine_is_left_alone() -> None:
    """Below the target nothing is ever done."""
    machine = Machine(DelayTarget(TARGET_MS, LADDER), full_ms=40)
    assert machine.run(600).step == 0
    assert machine.moves == []


def test_one_slow_second_is_not_enough() -> None:
    """A single observation above the target, between good ones, changes nothing."""
    target = DelayTarget(TARGET_MS, LADDER)
    good, bad = Observation(60, 40, 38, 30), Observation(300, 270, 260, 30)
    assert [target.advise(each, 0.0) for each in (bad, bad, good, bad, good, bad, bad)] == [
        None
    ] * 7
    assert target.advise(bad, 1.0) == 1


def test_slow_machine_goes_down_a_step_at_a_time() -> None:
    """Steps come one by one until the way is below the target, and then no further."""
    machine = Machine(DelayTarget(TARGET_MS, LADDER), full_ms=140)
    assert machine.run(30).step == 2
    assert [step for _, step in machine.moves] == [1, 2]
    assert machine.observe().way_ms <= TARGET_MS


def test_frames_are_spared_only_where_the_model_can_then_rest() -> None:
    """A model slower than every second frame gains nothing from fewer frames."""
    ladder = make_ladder(Size(320, 240), ())
    resting = Machine(DelayTarget(60, ladder), full_ms=55, beside_ms=4)
    assert str(resting.run(20).effort) == "320x240, 1 of 2 frames"
    busy = Machine(DelayTarget(60, ladder), full_ms=200, beside_ms=5)
    assert busy.run(20).step == 0


def test_what_the_network_takes_is_not_asked_of_the_model() -> None:
    """A way that is too long without any model keeps the model as it is."""
    machine = Machine(DelayTarget(TARGET_MS, LADDER), full_ms=40, beside_ms=200)
    assert machine.run(60).step == 0


def test_it_goes_back_up_when_it_can() -> None:
    """When the load is gone, the model is back at its full size after the patience."""
    machine = Machine(DelayTarget(TARGET_MS, LADDER), full_ms=300)
    assert machine.run(20).step == 2
    machine.full_ms = 40
    before_s = machine.now_s
    assert machine.run(60).step == 0
    first_up_s = machine.moves[2][0]
    assert first_up_s - machine.moves[1][0] >= FIRST_PATIENCE_S
    assert first_up_s - before_s <= FIRST_PATIENCE_S
    assert [step for _, step in machine.moves] == [1, 2, 1, 0]


def test_up_only_where_the_expected_way_stays_well_below() -> None:
    """A size that would be just below the target is not tried."""
    target = DelayTarget(TARGET_MS, LADDER)
    target.moved(1, 0.0)
    growth = float(LADDER[0].work / LADDER[1].work)
    fits_ms = (UP_SHARE * TARGET_MS - 30) / growth
    tight = Observation(30 + fits_ms * 1.05, fits_ms * 1.05, fits_ms, 30)
    roomy = Observation(30 + fits_ms * 0.95, fits_ms * 0.95, fits_ms, 30)
    assert target.advise(tight, 100.0) is None
    assert target.advise(roomy, 100.0) == 0
    assert target.advise(roomy, FIRST_PATIENCE_S / 2) is None


def test_failed_attempts_come_ever_more_rarely() -> None:
    """A machine whose larger size surprises by its slowness is not tried again and again."""

    class Trap(Machine):
        """Three times as slow as its pixels say at the full size."""

        def observe(self) -> Observation:
            seen = super().observe()
            if self.target.step == 0:
                return Observation(seen.way_ms * 3, seen.engine_ms * 3, seen.translate_ms, 30)
            return seen

    machine = Trap(DelayTarget(TARGET_MS, LADDER), full_ms=45)
    machine.run(3600)
    ups_s = [at_s for at_s, step in machine.moves if step == 0]
    waits_s = [b - a for a, b in pairwise(ups_s)]
    assert waits_s[0] >= 2 * FIRST_PATIENCE_S
    assert waits_s[:4] == sorted(waits_s[:4])
    assert waits_s[-1] >= LONGEST_PATIENCE_S
    assert len(ups_s) < 20


@pytest.mark.parametrize("seed", range(5))
def test_noise_does_not_make_it_swing(seed: int) -> None:
    """On a machine with noise of a quarter the size changes rarely."""
    draw = random.Random(seed)

    class Noisy(Machine):
        def observe(self) -> Observation:
            seen = super().observe()
            noise = draw.uniform(0.75, 1.25)
            engine_ms = seen.engine_ms * noise
            return Observation(30 + engine_ms, engine_ms, seen.translate_ms * noise, 30)

    machine = Noisy(DelayTarget(TARGET_MS, LADDER), full_ms=85)
    machine.run(1800)
    assert len(machine.moves) <= 30
