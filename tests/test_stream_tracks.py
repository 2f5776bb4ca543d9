"""The track that a peer receives."""

from __future__ import annotations

import asyncio
import time
from fractions import Fraction

import pytest
from aiortc.mediastreams import MediaStreamError
from av import VideoFrame

from stream.feed import ArrivedFrame, Finished
from stream.latest import Latest
from stream.sound import PictureDelay
from stream.stamps import SentFrame
from stream.stats import Metrics, SessionStats
from stream.tracks import TranslatedTrack

TIME_BASE = Fraction(1, 90000)


def finished(number: int, pts: int, age_s: float = 0.0, *, is_repeat: bool = False) -> Finished:
    frame = VideoFrame(16, 16, "yuv420p")
    frame.pts, frame.time_base = pts, TIME_BASE
    arrived = ArrivedFrame(frame, number, time.perf_counter() - age_s)
    return Finished(arrived, frame, True, is_repeat=is_repeat)


def make_track() -> tuple[TranslatedTrack, Latest[Finished], SessionStats]:
    outbox: Latest[Finished] = Latest()
    stats = SessionStats(Metrics())
    return TranslatedTrack(outbox, stats, PictureDelay()), outbox, stats


async def test_frames_are_counted() -> None:
    """Each frame that is handed over is counted with its age."""
    track, outbox, stats = make_track()
    for number in range(3):
        outbox.put(finished(number, number * 3000))
        assert (await track.recv()).pts == number * 3000
    assert stats.frames_out == 3
    assert 0 <= stats.to_json()["age_ms"] < 1000


async def test_picture_that_is_sent_again_gets_older() -> None:
    """The time here is that of what is seen, and a repeat counts as no new frame."""
    track, outbox, stats = make_track()
    for age_s, is_repeat, expected_ms in ((0.0, False, 0), (2.0, True, 2000), (0.0, False, 0)):
        outbox.put(finished(0, 0, age_s, is_repeat=is_repeat))
        await track.recv()
        now_s = time.perf_counter()
        track.note_sent(SentFrame(0, now_s, now_s))
        assert expected_ms <= stats.to_json()["here_ms"] < expected_ms + 1000
    assert stats.frames_out == 2


async def test_what_went_past_the_model_took_no_time_in_it() -> None:
    """Stages of translated pictures are not those of the camera's own."""
    _, _, stats = make_track()
    for stage in ("decode", "wait", "translate", "encode"):
        stats.stage(stage, 5.0)
    stats.went_past_model()
    known = {name for name, ms in stats.to_json()["stages_ms"].items() if ms is not None}
    assert known == {"decode", "encode"}


async def test_stop_ends_a_waiting_recv() -> None:
    """A stopped track raises for who waits and for who comes later."""
    track, outbox, _ = make_track()
    receiver = asyncio.create_task(track.recv())
    await asyncio.sleep(0)  # let the receiver wait
    track.stop()
    track.stop()
    with pytest.raises(MediaStreamError):
        await receiver
    outbox.put(finished(0, 0))
    with pytest.raises(MediaStreamError):
        await track.recv()


async def test_stages_after_the_track_are_recorded() -> None:
    """The sender's times of the last frame become stages; those of another do not."""
    track, outbox, stats = make_track()
    outbox.put(finished(0, 0))
    await track.recv()
    now_s = time.perf_counter()
    track.note_sent(SentFrame(7, now_s, now_s))
    assert "send" not in stats.to_json()["stages_ms"]
    track.note_sent(SentFrame(0, now_s + 0.005, now_s + 0.006))
    stages_ms = stats.to_json()["stages_ms"]
    assert 5 <= stages_ms["encode"] < 100
    assert stages_ms["send"] == pytest.approx(1.0, abs=0.01)
