"""MediaPipe's selfie segmentation, run by OpenVINO (its card: weights/person-mask.md)."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.engines.runtime import get_core
from pipeline.errors import CheckpointError, EngineError
from pipeline.person_mask import SIDE_PX, Mask

THREADS = 2


class OpenVinoSegmenter:
    """Runs the network from its IR; one picture at a time, whichever thread asks."""

    def __init__(self, ir: Path, threads: int = THREADS) -> None:
        """Load it.

        Raises:
            CheckpointError: the file is damaged, or not this network.
        """
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
        }
        try:
            compiled = get_core().compile_model(ir, "CPU", options)
        except RuntimeError as error:
            raise CheckpointError(f"{ir.name} is damaged; install the package again") from error
        shape = tuple(compiled.input(0).shape)
        if shape != (1, SIDE_PX, SIDE_PX, 3):
            raise CheckpointError(f"{ir.name} is another network: it takes {shape}")
        self._request = compiled.create_infer_request()
        # Engines of two threads may ask while one takes over from the other.
        self._lock = threading.Lock()

    def segment(self, image: NDArray[np.uint8]) -> Mask:
        """See :class:`pipeline.person_mask.PersonSegmenter`."""
        pixels = image[None].astype(np.float32)
        pixels *= np.float32(1 / 255)
        with self._lock:
            try:
                results = self._request.infer([pixels], share_inputs=True, share_outputs=True)
            except RuntimeError as error:
                raise EngineError(f"OpenVINO failed on a person's mask: {error}") from error
            # It lies in memory that the next call overwrites.
            mask: Mask = np.array(results[0][0, :, :, 0])
        return mask
