"""Publishes five seconds of an orange picture by FFmpeg's own WHIP: URL, CERTIFICATE, KEY.

A process of its own, since FFmpeg connects while it holds the interpreter.
"""

from __future__ import annotations

import sys
import time

import av
import numpy as np


def main(url: str, certificate: str, key: str) -> None:
    options = {"cert_file": certificate, "key_file": key}
    with av.open(url, "w", format="whip", options=options) as output:
        encoding = {"tune": "zerolatency", "preset": "ultrafast", "profile": "baseline"}
        stream = output.add_stream("libx264", rate=30, options=encoding)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.gop_size = 30
        start_s = time.perf_counter()
        for number in range(150):
            image = np.full((120, 160, 3), (200, 120, 40), np.uint8)
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts = number
            output.mux(stream.encode(frame))
            if number == 0:
                print("connected", flush=True)
            time.sleep(max(0.0, start_s + number / 30 - time.perf_counter()))


if __name__ == "__main__":
    main(*sys.argv[1:])
