"""What is shown while the model is slower than a second a frame."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from av import VideoFrame
from engines import ColourEngine, SlowEngine
from peers import Screen, flat, middle, serving, to_rgb
from test_stream_session import ORANGE, expected

from pipeline.engines import Conditioning, Image, Job, Size
from stream import sign
from stream.feed import ArrivedFrame, Finished
from stream.stall import CAMERA_AFTER_S, SIGN_AFTER_S, Shows, StallWatch

pytestmark = pytest.mark.usefixtures("corrected")

RATE_HZ = 30
SIGN_ORANGE = np.array([255, 157, 92])


def arrived(number: int, at_s: float) -> ArrivedFrame:
    frame = VideoFrame(16, 16, "yuv420p")
    frame.pts, frame.time_base = 3000 * number, Fraction(1, 90000)
    return ArrivedFrame(frame, number, at_s)


def answer(number: int, at_s: float) -> Finished:
    came = arrived(number, at_s)
    return Finished(came, VideoFrame.from_ndarray(came.frame.to_ndarray(), "yuv420p"), True)


def play(model_s: Callable[[float], float], duration_s: float) -> list[tuple[float, str]]:
    """Run a camera and a model with made-up times.

    Args:
        model_s: how long a frame takes that is begun at a time.
        duration_s: of the camera.

    Returns:
        Everything that is shown, with its time: ``"translation"``, ``"signed"`` (a translation
        with the sign), ``"held"``, ``"camera"``.
    """
    watch, shown = StallWatch(), []
    at_work: tuple[Finished, float] | None = None
    last_pts = -1
    for number in range(round(duration_s * RATE_HZ)):
        now_s = number / RATE_HZ
        came = arrived(number, now_s)
        if at_work is not None and at_work[1] <= now_s:
            finished, at_s = at_work
            finished.frame.pts = finished.arrived.frame.pts
            if watch.answered(finished, at_s):
                assert finished.frame.pts > last_pts, "time goes on"
                last_pts = finished.frame.pts
                shown.append((at_s, "signed" if watch.shows is Shows.HELD else "translation"))
            at_work = None
        due = watch.submitted(now_s)
        if due is not None:
            watch.lend_pts(came)
            assert came.frame.pts > last_pts, "time goes on"
            last_pts = came.frame.pts
            shown.append((now_s, due.value))
        at_work = at_work or (answer(number, now_s), now_s + model_s(now_s))
    return shown


def kinds(shown: list[tuple[float, str]], since_s: float = 0.0) -> set[str]:
    return {kind for at_s, kind in shown if at_s >= since_s}


@pytest.mark.parametrize("model_s", [0.03, 0.2, 0.9])
def test_model_below_a_second_has_no_sign(model_s: float) -> None:
    """A slow but steady model below one second a frame is shown as it is."""
    assert kinds(play(lambda _: model_s, 10)) == {"translation"}


def test_hang_is_held_then_camera_then_translation() -> None:
    """A hang of 5 s: one second of silence, the sign, the camera, and the model again."""
    hang_s, ends_s = 2.0, 7.0
    shown = play(lambda at_s: ends_s - at_s if hang_s <= at_s < ends_s else 0.03, 10)
    held = [at_s for at_s, kind in shown if kind == "held"]
    camera = [at_s for at_s, kind in shown if kind == "camera"]
    assert held[0] - hang_s == pytest.approx(SIGN_AFTER_S, abs=0.15)
    assert camera[0] - hang_s == pytest.approx(CAMERA_AFTER_S, abs=0.15)
    assert camera[-1] == pytest.approx(ends_s, abs=0.15)
    assert kinds(shown, ends_s + 0.15) == {"translation"}
    # Ten a second are enough for the sign; the camera is shown as it comes.
    assert len(held) == pytest.approx(10 * (CAMERA_AFTER_S - SIGN_AFTER_S), abs=6)
    assert len(camera) == pytest.approx(RATE_HZ * (ends_s - camera[0]), abs=3)
    moments = [at_s for at_s, _ in shown]
    gaps_s = np.diff(moments)
    assert gaps_s.max() <= SIGN_AFTER_S + 0.15, "never a second without a picture or a word"


@pytest.mark.parametrize("model_s", [1.2, 1.5, 2.0])
def test_model_of_one_to_two_seconds_always_has_the_sign(model_s: float) -> None:
    """The sign does not come and go with each picture of a model that is always too slow."""
    shown = play(lambda _: model_s, 20)
    later = [kind for at_s, kind in shown if at_s > 3]
    assert set(later) == {"signed", "held"}
    assert later.count("signed") == pytest.approx(17 / model_s, abs=3)


def test_model_that_is_as_good_as_none_leaves_the_camera() -> None:
    """Pictures of a model of four seconds would only jump back: the camera stays."""
    shown = play(lambda _: 4.0, 20)
    assert kinds(shown, CAMERA_AFTER_S + 0.1) == {"camera"}


def test_model_that_recovers_loses_the_sign() -> None:
    """With the first picture in time the sign is gone."""
    shown = play(lambda at_s: 1.5 if at_s < 5 else 0.03, 10)
    assert "signed" in kinds(shown)
    assert kinds(shown, 7) == {"translation"}


def test_pause_of_the_camera_is_not_the_models() -> None:
    """Who sends no frames for a while finds no sign when it goes on."""
    watch = StallWatch()
    assert watch.submitted(0.0) is None
    assert watch.answered(answer(0, 0.0), 0.1)
    assert watch.submitted(60.0) is None
    assert watch.shows is Shows.TRANSLATION


def test_reset_forgets_the_stall() -> None:
    """Frames that go past the model end a stall."""
    watch = StallWatch()
    watch.submitted(0.0)
    assert watch.submitted(1.5) is Shows.CAMERA
    watch.reset()
    assert watch.shows is Shows.TRANSLATION
    assert watch.submitted(1.6) is None


class HangingEngine(ColourEngine):
    """Stops in the middle of a batch or a prompt while the gate is shut."""

    def __init__(self, size: Size | None = None) -> None:
        super().__init__(size)
        self.gate = threading.Event()
        self.gate.set()

    def encode_prompt(self, prompt: str) -> Conditioning:
        assert self.gate.wait(60), "the test did not open the gate"
        return super().encode_prompt(prompt)

    def translate(self, jobs: Sequence[Job]) -> list[Image]:
        assert self.gate.wait(60), "the test did not open the gate"
        return super().translate(jobs)


def has_sign(frame: VideoFrame) -> bool:
    """Look for the sign's dark ground in the bottom left corner of a picture of one colour."""
    image = to_rgb(frame).astype(int)
    corner = image[-image.shape[0] // 4 :, : image.shape[1] // 4]
    # Its mark is dim in half of its beats, and an encoder may flatten that; the ground is not.
    return bool(corner.mean(axis=2).min() < middle(frame).mean() - 50)


def show_of(frame: VideoFrame) -> str:
    near = lambda colour: np.abs(middle(frame) - np.array(colour)).max() <= 16  # noqa: E731
    if near(expected("invert", ORANGE)):
        return "held" if has_sign(frame) else "translation"
    return "camera" if near(ORANGE) else "other"


async def until_show(
    screen: Screen, wanted: str, since: int | None = None, deadline_s: float = 20.0
) -> VideoFrame:
    """Wait for a frame that shows ``wanted``, from the number ``since`` on, or from now on."""
    first = len(screen.frames) if since is None else since

    def find() -> VideoFrame | None:
        return next((f for f in screen.frames[first:] if show_of(f) == wanted), None)

    return await screen.until(find, deadline_s)


async def test_engine_that_hangs_in_mid_stream() -> None:
    """Frames keep coming: the marked picture, the camera, and the translation when it is back."""
    built: list[HangingEngine] = []

    def build() -> HangingEngine:
        built.append(HangingEngine())
        return built[-1]

    async with serving(build) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        await until_show(peer, "translation")
        viewer = await server.play(peer.location.rpartition("/")[2])
        await viewer.until_frames(3)
        stall = server.session(peer)._stall
        hung_s = time.perf_counter()
        hung, watched = len(peer.frames), len(viewer.frames)
        built[0].gate.clear()
        await until_show(peer, "held")
        state = await peer.until_message(lambda m: m.get("stall") == "held")
        assert state["state"] == "stalled"
        # It has an encoder and a way of its own: what comes is the same, not when.
        await until_show(viewer, "held", watched)
        await until_show(peer, "camera")
        held = [frame for frame in peer.frames[hung:] if show_of(frame) == "held"]
        assert len(held) >= 8, "the sign moves"
        await peer.until_message(lambda m: m.get("stall") == "camera")
        before = len(peer.frames)
        async with asyncio.timeout(20):
            while time.perf_counter() < hung_s + 5:
                await peer.until_frames(1)
        assert {show_of(frame) for frame in peer.frames[before + 5 :]} == {"camera"}
        built[0].gate.set()
        await until_show(peer, "translation")
        await peer.until(lambda: show_of(peer.frames[-1]) == "translation")
        peer.messages.clear()
        state = await peer.until_message(lambda m: m.get("type") == "stats")
        assert (state["state"], state["stall"]) == ("live", None)
        assert stall.shows is Shows.TRANSLATION
        times = [frame.pts for frame in peer.frames]
        assert times == sorted(times)
        assert times[-1] / 90000 < 60, "the clock is the camera's still"


async def test_model_of_more_than_a_second_a_frame() -> None:
    """Every picture has the sign, new ones come as the model makes them, and some each second."""
    async with serving(lambda: SlowEngine(1.4)) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        await until_show(peer, "held")
        session = server.session(peer)
        before, first = len(peer.frames), session.stats.frames_out
        await peer.until(lambda: session.stats.frames_out >= first + 3)
        shown = [show_of(frame) for frame in peer.frames[before:]]
        assert set(shown) == {"held"}
        # Three new pictures, and about ten repeats a second.
        assert len(shown) >= 15
        assert server.engine.status.is_ready


@pytest.mark.parametrize("size", [(640, 480), (1280, 720), (160, 120), (16, 16), (240, 320)])
def test_sign_lies_in_the_corner(size: tuple[int, int]) -> None:
    """The sign changes the bottom left alone, is seen, and beats."""
    width, height = size
    frame = VideoFrame.from_ndarray(np.full((height, width, 3), 120, np.uint8), "rgb24")
    frame = frame.reformat(format="yuv420p")
    like = VideoFrame(width, height, "yuv420p")
    like.pts, like.time_base = 77, Fraction(1, 90000)
    beats = [sign.repeat_with_sign(frame, like, at * sign.BEAT_S) for at in (0.0, 0.5)]
    assert [(each.pts, each.time_base) for each in beats] == [(77, like.time_base)] * 2
    plain, bright, dim = (to_rgb(each).astype(int) for each in (frame, *beats))
    changed = np.abs(bright - plain).max(-1) > 8
    assert changed.any()
    if min(size) > 16:
        assert not changed[: height // 2].any()
        assert not changed[:, width * 3 // 4 :].any()
    assert np.abs(bright - SIGN_ORANGE).sum(-1).min() < 40
    assert np.abs(bright - dim).max() > 40
    assert np.array_equal(to_rgb(frame), plain.astype(np.uint8)), "the picture itself stays"


def test_sign_is_the_same_in_a_mirror() -> None:
    """The page shows a camera mirrored; the sign of a picture that stands still reads so too."""
    frame = VideoFrame.from_ndarray(np.full((480, 640, 3), 120, np.uint8), "rgb24")
    frame = frame.reformat(format="yuv420p")
    plain = to_rgb(frame).astype(int)
    sign.draw_sign(frame, 0.0)
    rows, columns = np.nonzero(np.abs(to_rgb(frame) - plain).max(-1) > 8)
    mark = to_rgb(frame)[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].astype(int)
    assert mark.shape == (48, 48, 3)
    assert np.abs(mark - mark[:, ::-1]).max() <= 2


def test_later_sign_covers_the_earlier() -> None:
    """A picture that had the sign already looks as if it had never had another."""
    frame = VideoFrame.from_ndarray(np.full((120, 160, 3), 120, np.uint8), "rgb24")
    once, twice = (frame.reformat(format="yuv420p") for _ in range(2))
    sign.draw_sign(once, 0.6)
    sign.draw_sign(twice, 0.1)
    sign.draw_sign(twice, 0.6)
    assert np.array_equal(once.to_ndarray(), twice.to_ndarray())
