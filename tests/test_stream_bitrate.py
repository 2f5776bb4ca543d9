from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from stream.bitrate import (
    DEFAULT_CAP_BPS,
    FIRST_PATIENCE_S,
    LONGEST_PATIENCE_S,
    MIN_BITRATE_BPS,
    MIN_CHANGE_INTERVAL_S,
    MIN_FAR_CHANGE_INTERVAL_S,
    EncoderPlan,
    RateControl,
    full_bitrate_bps,
)

RATE_HZ = 30


@dataclass
class Drive:
    """A rate control, fed with frames that cost what the plan allows, or a share of it."""

    width: int = 1280
    height: int = 720
    demand: float = 1.0
    """Share of the planned bit rate that the picture really takes."""
    rate_hz: float = RATE_HZ
    control: RateControl = field(default_factory=RateControl)
    now_s: float = 100.0
    changes: list[tuple[float, EncoderPlan]] = field(default_factory=list)

    def run(self, duration_s: float, estimate_bps: float | None = None) -> EncoderPlan:
        """Encode for a while, with one estimate from the receiver or none."""
        end_s = self.now_s + duration_s
        while self.now_s < end_s:
            if estimate_bps is not None:
                self.control.estimate_bps = int(estimate_bps)
            plan = self.control.plan(self.width, self.height, self.now_s, self.now_s)
            if not self.changes or self.changes[-1][1] != plan:
                self.changes.append((self.now_s, plan))
            self.control.output.add(
                int(self.demand * plan.bitrate_bps / 8 / self.rate_hz), self.now_s
            )
            self.now_s += 1 / self.rate_hz
        return plan

    def last_output_bps(self, otherwise_bps: float) -> float:
        """What was put out in the last whole second, if there was one."""
        return self.control.output.bitrate_bps or otherwise_bps

    def intervals_s(self) -> list[float]:
        """Between two changes, from the beginning on."""
        return [b - a for (a, _), (b, _) in pairwise(self.changes)]


def test_bit_rates_follow_the_size() -> None:
    """720p gets 2.5 Mb/s, smaller pictures more bits a pixel, none more than the cap."""
    cap_bps = DEFAULT_CAP_BPS
    assert full_bitrate_bps(1280, 720, cap_bps) == 2_500_000
    assert full_bitrate_bps(640, 480, cap_bps) == pytest.approx(1_100_000, rel=0.01)
    assert full_bitrate_bps(3840, 2160, cap_bps) == cap_bps
    assert full_bitrate_bps(16, 16, cap_bps) == MIN_BITRATE_BPS
    assert full_bitrate_bps(1280, 720, 1_000_000) == 1_000_000


def test_without_an_estimate_the_full_rate_is_used() -> None:
    """Until the receiver says something, nothing is held back and nothing changes."""
    drive = Drive()
    assert drive.run(10) == EncoderPlan(1280, 720, 2_500_000, 30)
    assert len(drive.changes) == 1


@pytest.mark.parametrize("wobble", [(2.4e6, 2.9e6), (2.3e6, 9e6)])
def test_a_wobbling_estimate_changes_nothing(wobble: tuple[float, float]) -> None:
    """An estimate that swings around the bit rate never opens a new encoder."""
    drive = Drive()
    for turn in range(40):
        drive.run(0.5, wobble[turn % 2])
    assert len(drive.changes) == 1


def test_a_falling_estimate_is_followed_at_once_but_not_too_often() -> None:
    """One step down takes the bit rate below the estimate; the next waits its time."""
    drive = Drive()
    drive.run(3, 4e6)
    drive.run(1.2, 1.5e6)
    assert drive.changes[-1][1].bitrate_bps <= 1.5e6
    for estimate_bps in (1.2e6, 1e6, 8e5):
        drive.run(0.8, estimate_bps)
    drive.run(5, 7e5)
    assert drive.changes[-1][1].bitrate_bps <= 7e5
    assert all(after_s >= MIN_CHANGE_INTERVAL_S - 1e-9 for after_s in drive.intervals_s())


def test_far_too_much_is_taken_back_sooner() -> None:
    """A second step down need not wait its time while twice what the network carries is sent."""
    drive = Drive()
    drive.run(3, 4e6)
    drive.run(1.5, 1.5e6)
    drive.run(0.5, 4e5)
    assert drive.changes[-1][1].bitrate_bps <= 4e5
    assert MIN_FAR_CHANGE_INTERVAL_S <= drive.intervals_s()[-1] < MIN_CHANGE_INTERVAL_S


def test_a_step_up_that_does_not_last_is_tried_ever_more_rarely() -> None:
    """Where the network carries less than one step more, key frames for trying grow rare."""
    drive = Drive()
    drive.run(3, 4e6)
    carried_bps = 5.5e5
    came_bps = 3e5
    tries_s = []
    was_try = False
    for _ in range(1000):
        came_bps = min(carried_bps, drive.last_output_bps(came_bps))
        is_try = drive.changes[-1][1].bitrate_bps > carried_bps
        if is_try and not was_try:
            tries_s.append(drive.now_s)
        was_try = is_try
        drive.run(0.5, 0.85 * carried_bps if is_try else 1.45 * came_bps)
    gaps_s = [b - a for a, b in pairwise(tries_s)]
    assert gaps_s[4] > 2 * gaps_s[2] > 3 * gaps_s[0]
    assert LONGEST_PATIENCE_S < gaps_s[-1] < 3 * LONGEST_PATIENCE_S


def test_the_picture_gets_smaller_before_it_breaks_up() -> None:
    """What a large picture cannot live on is given to a smaller one, and back again."""
    drive = Drive()
    drive.run(3, 4e6)
    poor = drive.run(6, 4e5)
    assert poor.bitrate_bps <= 4e5
    assert (poor.width, poor.height) == (640, 360)
    poorest = drive.run(6, 5e4)
    assert (poorest.width, poorest.height) == (320, 180)
    assert poorest.bitrate_bps == MIN_BITRATE_BPS
    rich = drive.run(120, 9e6)
    assert rich == EncoderPlan(1280, 720, 2_500_000, 30)


def test_one_failed_step_up_is_one_failure_however_far_down_it_led() -> None:
    """What is free again is used again soon, up to the step that failed and past it."""
    drive = Drive()
    drive.run(3, 4e6)
    drive.run(4, 5e5)
    low_bps = drive.changes[-1][1].bitrate_bps
    while drive.changes[-1][1].bitrate_bps <= low_bps:
        drive.run(0.5, 1.45 * low_bps)
    for estimate_bps in (4e5, 2.5e5, 1.5e5):
        drive.run(4, estimate_bps)
    lowest = len(drive.changes)
    came_bps = 1e5
    while drive.changes[-1][1].bitrate_bps < 2_500_000:
        came_bps = drive.last_output_bps(came_bps)
        drive.run(0.5, 1.45 * came_bps)
    assert max(drive.intervals_s()[lowest:]) <= 2 * FIRST_PATIENCE_S + 2


def test_it_rises_with_an_estimate_that_follows_what_is_sent() -> None:
    """Receivers say at most 1.5 times what arrives; that suffices to come back."""
    drive = Drive()
    drive.run(3, 4e6)
    drive.run(4, 5e5)
    came_bps = 3e5
    for _ in range(150):
        came_bps = drive.last_output_bps(came_bps)
        drive.run(0.5, 1.45 * came_bps)
    assert drive.changes[-1][1].bitrate_bps == 2_500_000


def test_an_easy_picture_is_not_taken_for_a_poor_network() -> None:
    """A still scene keeps the estimate low; its size stays, and so does its quality."""
    drive = Drive(demand=0.2)
    for _ in range(40):
        drive.run(0.5, 1.5 * (drive.control.output.bitrate_bps or 5e5))
    assert len(drive.changes) == 1


def test_another_camera_size_counts_at_once() -> None:
    """The frames' own size is never wrong, however lately it changed."""
    drive = Drive()
    drive.run(0.5)
    drive.width, drive.height = 640, 480
    plan = drive.run(0.1)
    assert (plan.width, plan.height) == (640, 480)
    assert plan.bitrate_bps < 2_500_000


@pytest.mark.parametrize(("rate_hz", "expected"), [(14.0, 15), (60.0, 60), (24.0, 30)])
def test_a_lasting_frame_rate_is_followed(rate_hz: float, expected: int) -> None:
    """An encoder that expects 30 frames a second gives 15 half of their bits."""
    drive = Drive(rate_hz=rate_hz)
    assert drive.run(15).frame_rate_hz == expected
    assert len(drive.changes) <= 2


def test_odd_sizes_become_even() -> None:
    """Half a chroma sample cannot be encoded."""
    plan = Drive(width=641, height=359).run(0.1)
    assert (plan.width % 2, plan.height % 2) == (0, 0)
