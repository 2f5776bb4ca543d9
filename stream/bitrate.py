"""How large and at what bit rate a picture is encoded, from what the network carries.

An open VP8 encoder cannot change its bit rate (PyAV 18.1 passes it on to libx264 only, and
there without the buffer model), so every change opens a new encoder and costs a key frame.
Changes therefore go in steps, rarely, and not for every wobble of the estimate.
"""

from __future__ import annotations

from dataclasses import dataclass

REFERENCE_PIXELS = 1280 * 720
REFERENCE_BITRATE_BPS = 2_500_000
# Large pictures need fewer bits a pixel: 640x480 gets 1.1 Mb/s, 1920x1080 4.6 Mb/s.
PIXELS_EXPONENT = 0.75
MIN_BITRATE_BPS = 100_000
DEFAULT_CAP_BPS = 4_000_000

# Below this share of a size's full bit rate, a smaller and sharper picture is the better one.
MIN_SHARE = 0.35
SCALES = (1.0, 0.75, 0.5, 0.375, 0.25)

# One step up may not ask for more than an estimate can show: receivers cap it at 1.5 times
# what arrives (libwebrtc's AIMD rate control).
STEP = 0.8
UP_MARGIN = 1.1
DOWN_SHARE = 0.9
# What is sent fills the network if it is this share of the estimate.
FILLED_SHARE = 0.75
MIN_CHANGE_INTERVAL_S = 2.5
# Far too much fills every queue on the way: then a second key frame is the lesser evil.
FAR_DOWN_SHARE = 0.5
MIN_FAR_CHANGE_INTERVAL_S = 1.0

FIRST_PATIENCE_S = 3.0
LONGEST_PATIENCE_S = 48.0
"""How long an estimate has to allow a step up before it is taken. Where one did not last the
next try waits twice as long, for each is a key frame and a moment's jam."""
LASTING_S = 12.0
"""A step up that is taken back sooner, or within twice the patience before it, has failed."""

FRAME_RATES_HZ = (60, 30, 15, 8)
FIRST_FRAME_RATE_HZ = 30
FRAME_RATE_FACTOR = 1.6
FRAME_RATE_AFTER_S = 5.0
INTERVAL_ALPHA = 0.05

_OUTPUT_WINDOW_S = 1.0


@dataclass(frozen=True, slots=True)
class EncoderPlan:
    """What an encoder is opened with."""

    width: int
    height: int
    bitrate_bps: int
    frame_rate_hz: int


def full_bitrate_bps(width: int, height: int, cap_bps: int) -> int:
    """Return the bit rate at which a picture of this size has nothing to wish for."""
    share = (width * height / REFERENCE_PIXELS) ** PIXELS_EXPONENT
    return int(min(max(REFERENCE_BITRATE_BPS * share, MIN_BITRATE_BPS), cap_bps))


class OutputMeter:
    """What the encoder has put out lately."""

    def __init__(self) -> None:
        self.bitrate_bps: float | None = None
        """Over whole windows of a second; None: the first is not over."""
        self._bytes = 0
        self._window_start_s: float | None = None

    def add(self, size_bytes: int, now_s: float) -> None:
        """Note one encoded frame."""
        if self._window_start_s is None:
            self._window_start_s = now_s
        elapsed_s = now_s - self._window_start_s
        if elapsed_s >= _OUTPUT_WINDOW_S:
            self.bitrate_bps = self._bytes * 8 / elapsed_s
            self._bytes = 0
            self._window_start_s = now_s
        self._bytes += size_bytes

    def forget(self) -> None:
        """Begin anew with another encoder."""
        self.bitrate_bps = None
        self._bytes = 0
        self._window_start_s = None


class RateControl:
    """Chooses the plan for one session's encoder. Reads no clock."""

    def __init__(self, cap_bps: int = DEFAULT_CAP_BPS) -> None:
        self.estimate_bps: int | None = None
        """What the receiver says that the network carries (REMB); None: nothing yet."""
        self.output = OutputMeter()
        self._cap_bps = cap_bps
        self._source: tuple[int, int] | None = None
        self._step = 0
        self._changed_s = 0.0
        self._can_rise_since_s: float | None = None
        self._patience_s = FIRST_PATIENCE_S
        # The step up that failed, and needs the patience; None: none has.
        self._failed_step: int | None = None
        # When a step up was taken after which none went down; None: it went down last.
        self._went_up_s: float | None = None
        self._frame_rate_hz = FIRST_FRAME_RATE_HZ
        self._interval_s = 1 / FIRST_FRAME_RATE_HZ
        self._off_rate_since_s: float | None = None
        self._last_pts_s: float | None = None

    def expect_frame_rate(self, frame_rate_hz: int) -> None:
        """Begin with a rate out of :data:`FRAME_RATES_HZ` that is known already."""
        self._frame_rate_hz = frame_rate_hz
        self._interval_s = 1 / frame_rate_hz

    def plan(self, width: int, height: int, pts_s: float, now_s: float) -> EncoderPlan:
        """Return what the next frame is to be encoded with.

        Args:
            width: of the frame, like ``height``; a change counts at once.
            height: see ``width``.
            pts_s: the frame's time, by which the frame rate is measured.
            now_s: a steady clock, in seconds.
        """
        self._measure_interval(pts_s)
        if (width, height) != self._source:
            self._source = (width, height)
            self._changed_s = now_s
        elif self._move_step(now_s) | self._move_frame_rate(now_s):
            self._changed_s = now_s
            self.output.forget()
        return self._plan_at(self._step)

    def _plan_at(self, step: int) -> EncoderPlan:
        assert self._source is not None, "plan() sets it"
        width, height = self._source
        bitrate_bps = self._bitrate_at(step)
        for scale in SCALES:
            scaled = _scale(width, scale), _scale(height, scale)
            if bitrate_bps >= MIN_SHARE * full_bitrate_bps(*scaled, self._cap_bps):
                break
        return EncoderPlan(*scaled, bitrate_bps, self._frame_rate_hz)

    def _bitrate_at(self, step: int) -> int:
        assert self._source is not None, "plan() sets it"
        full_bps = full_bitrate_bps(*self._source, self._cap_bps)
        return max(int(full_bps * STEP**step), MIN_BITRATE_BPS)

    def _move_step(self, now_s: float) -> bool:
        """Go down at once as far as needed, or up one step after a while; tell if so."""
        estimate_bps = self.estimate_bps
        output_bps = self.output.bitrate_bps
        if estimate_bps is None or output_bps is None:
            return False
        bitrate_bps = self._bitrate_at(self._step)
        # An estimate follows what is sent, so that an easy picture keeps it low.
        is_filled = output_bps > FILLED_SHARE * estimate_bps
        if is_filled and estimate_bps < DOWN_SHARE * bitrate_bps:
            self._can_rise_since_s = None
            is_far = estimate_bps < FAR_DOWN_SHARE * bitrate_bps
            interval_s = MIN_FAR_CHANGE_INTERVAL_S if is_far else MIN_CHANGE_INTERVAL_S
            if bitrate_bps == MIN_BITRATE_BPS or now_s - self._changed_s < interval_s:
                return False
            self._note_down(now_s)
            while self._bitrate_at(self._step) > max(estimate_bps, MIN_BITRATE_BPS):
                self._step += 1
            return True
        risen_bps = min(bitrate_bps, output_bps) / STEP
        if self._step == 0 or estimate_bps < UP_MARGIN * risen_bps:
            self._can_rise_since_s = None
            return False
        self._can_rise_since_s = self._can_rise_since_s or now_s
        since_s = max(self._can_rise_since_s, self._changed_s)
        has_failed = self._failed_step is not None and self._step - 1 <= self._failed_step
        if now_s - since_s < (self._patience_s if has_failed else FIRST_PATIENCE_S):
            return False
        if self._went_up_s is not None and self._step == self._failed_step:
            self._forget_failure()
        self._can_rise_since_s = None
        self._went_up_s = now_s
        self._step -= 1
        return True

    def _note_down(self, now_s: float) -> None:
        """Be the more patient with a step up that was too much."""
        if self._went_up_s is None:
            return
        lasting_s = max(LASTING_S, 2 * self._patience_s)
        if now_s - self._went_up_s < lasting_s:
            self._failed_step = self._step
            self._patience_s = min(2 * self._patience_s, LONGEST_PATIENCE_S)
        else:
            self._forget_failure()
        self._went_up_s = None

    def _forget_failure(self) -> None:
        self._failed_step = None
        self._patience_s = FIRST_PATIENCE_S

    def _move_frame_rate(self, now_s: float) -> bool:
        """Follow a lasting change of the frame rate, which sets the bits of each frame."""
        ratio = 1 / self._interval_s / self._frame_rate_hz
        if 1 / FRAME_RATE_FACTOR <= ratio <= FRAME_RATE_FACTOR:
            self._off_rate_since_s = None
            return False
        self._off_rate_since_s = self._off_rate_since_s or now_s
        if now_s - max(self._off_rate_since_s, self._changed_s) < FRAME_RATE_AFTER_S:
            return False
        self._off_rate_since_s = None
        nearest = min(FRAME_RATES_HZ, key=lambda rate: abs(1 / rate - self._interval_s))
        has_changed = nearest != self._frame_rate_hz
        self._frame_rate_hz = nearest
        return has_changed

    def _measure_interval(self, pts_s: float) -> None:
        if self._last_pts_s is not None:
            # A pause is not a frame rate.
            interval_s = min(max(pts_s - self._last_pts_s, 1 / 120), 1.0)
            self._interval_s += INTERVAL_ALPHA * (interval_s - self._interval_s)
        self._last_pts_s = pts_s


def _scale(length_px: int, scale: float) -> int:
    """Return an even length, as 4:2:0 needs it."""
    return max(2, round(length_px * scale / 2) * 2)
