"""Frames that several threads convert at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCALE_IN_THREADS = """
import threading
import numpy as np
from av import VideoFrame
from stream import frames
from stream.bitrate import EncoderPlan
from stream.codecs import to_i420
from stream.tape_encoder import fit
from pipeline.engines import Size

picture = np.random.default_rng(1).integers(0, 255, (480, 640, 3), np.uint8)
frame = VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")
wanted, got = {}, {}
uses = {
    "poor viewer": lambda: to_i420(frame, EncoderPlan(320, 240, 500_000, 30)),
    "poorer viewer": lambda: to_i420(frame, EncoderPlan(240, 180, 300_000, 30)),
    "tape": lambda: fit(frame, Size(480, 360)),
    "mask": lambda: frames.to_square(frame, 256),
    "model": lambda: frames.to_image(frame, Size(256, 192), "rgb24")[0],
}

def show(result):
    return result.to_ndarray() if isinstance(result, VideoFrame) else result

def repeat(name):
    for _ in range(150):
        got[name] = show(uses[name]())

for name, use in uses.items():
    wanted[name] = show(use())
threads = [threading.Thread(target=repeat, args=(name,)) for name in uses for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert all(np.array_equal(got[name], wanted[name]) for name in uses)
print("whole")
"""


def test_a_frame_is_converted_in_several_threads_at_once() -> None:
    """Encoders of two viewers, tape, mask and model scale one frame together, each as if alone."""
    # A process of its own: by the frame's own converter it ends by a signal.
    result = subprocess.run(
        [sys.executable, "-c", SCALE_IN_THREADS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "whole\n"), result.stderr
