"""FFmpeg's encoders, as they are opened, and which of them makes H264."""

from __future__ import annotations

from typing import Any

import av
import pytest
from aiortc.codecs.h264 import H264Encoder
from test_stream_codecs import frame_at

from stream import encoders
from stream.bitrate import EncoderPlan
from stream.encoders import open_vp8, open_x264

SMALL = EncoderPlan(640, 480, 1_000_000, 30)
LARGE = EncoderPlan(1280, 720, 2_500_000, 30)
BASELINE = 66


@pytest.mark.parametrize(("plan", "subme"), [(SMALL, 1), (LARGE, 0)])
def test_h264_is_baseline_and_quick(plan: EncoderPlan, subme: int) -> None:
    """x264 looks at no frame ahead; large pictures are made at ultrafast, small at superfast."""
    (packet,) = open_x264(plan).encode(frame_at(0, plan.width, plan.height))
    units = list(H264Encoder._split_bitstream(bytes(packet)))
    (parameters,) = (unit for unit in units if unit[0] & 0x1F == 7)
    assert parameters[1] == BASELINE
    (said,) = (unit.decode("latin-1") for unit in units if b"options: " in unit)
    words = said.split("options: ")[1].split(" ")
    assert {"rc_lookahead=0", "bframes=0", "cabac=0", "scenecut=0", f"subme={subme}"} <= {*words}


@pytest.mark.parametrize(("plan", "least_speed"), [(SMALL, 8), (LARGE, 12)])
def test_vp8_is_quick_and_does_not_denoise(
    plan: EncoderPlan, least_speed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libvpx is told to be quicker than aiortc tells it, which says 6, and to denoise nothing."""
    told: dict[str, str] = {}
    open_any = encoders._open

    def note(name: str, wanted: EncoderPlan, options: dict[str, str]) -> Any:
        told.update(options)
        return open_any(name, wanted, options)

    monkeypatch.setattr(encoders, "_open", note)
    assert open_vp8(plan).encode(frame_at(0, plan.width, plan.height))
    assert -int(told["cpu-used"]) >= least_speed
    assert (told["noise-sensitivity"], told["lag-in-frames"]) == ("0", "0")


def test_the_probe_tells_its_reason() -> None:
    """Whatever was found, a person can read why."""
    choice = encoders.probe_h264()
    assert choice.name in ("libx264", "h264_nvenc")
    assert len(choice.reason) > 10


class Lagging:
    """An encoder that keeps the first frame."""

    def encode(self, frame: av.VideoFrame) -> list[Any]:
        return []


@pytest.mark.parametrize(
    ("opens", "name", "word"),
    [
        (open_x264, "h264_nvenc", "it encoded a frame"),
        (lambda plan: Lagging(), "libx264", "holds the first frame back"),
        (lambda plan: av.CodecContext.create("no-such", "w"), "libx264", "does not open here"),
    ],
)
def test_the_probe_encodes_a_frame(
    opens: Any, name: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graphics card is used if a frame that goes in comes out, and not if it only opens."""
    monkeypatch.setattr(encoders, "open_nvenc", opens)
    choice = encoders.probe_h264.__wrapped__()
    assert choice.name == name
    assert word in choice.reason


@pytest.mark.parametrize(("cpus", "expected"), [(2, (1, 1, 1)), (4, (1, 2, 2)), (16, (1, 2, 4))])
def test_threads_are_few(
    monkeypatch: pytest.MonkeyPatch, cpus: int, expected: tuple[int, int, int]
) -> None:
    """Small machines and small pictures have one thread: the model needs the rest."""
    monkeypatch.setattr("os.cpu_count", lambda: cpus)
    sizes = (640 * 480, 1280 * 720, 1920 * 1080)
    assert tuple(encoders.thread_count(pixels) for pixels in sizes) == expected
