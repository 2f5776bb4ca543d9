"""Where in a picture a person is: the border to ``stream``.

Free of OpenVINO, so that the server imports it in a millisecond.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CheckpointError
from pipeline.weights import PERSON_IR, embedded

SIDE_PX = 256
"""Of the square picture, aspect not kept, that a segmenter sees."""

Mask = NDArray[np.float32]
"""(SIDE_PX, SIDE_PX) in [0, 1]: how surely each pixel is part of a person."""


class PersonSegmenter(Protocol):
    """Looks at one picture at a time; may be used from any thread."""

    def segment(self, image: NDArray[np.uint8]) -> Mask:
        """Return where the person is in a picture, (SIDE_PX, SIDE_PX, 3) RGB.

        Raises:
            PipelineError: the segmenter failed on it.
        """


class SegmenterFactory(Protocol):
    """Loads a segmenter when it is first asked for; what nobody asks for costs nothing."""

    @property
    def obstacle(self) -> str | None:
        """Why there can be none, in one sentence that says what to do; found without loading."""

    def __call__(self) -> PersonSegmenter:
        """Load one, in any thread.

        Raises:
            PipelineError: its weights are missing or damaged, or what runs them is.
        """


class EmbeddedSegmenter:
    """Loads the package's own."""

    @property
    def obstacle(self) -> str | None:
        """See :class:`SegmenterFactory`."""
        if find_spec("openvino") is None:
            return "a person's mask needs OpenVINO: pip install openvino"
        try:
            embedded(PERSON_IR)
        except CheckpointError as error:
            return str(error)
        return None

    def __call__(self) -> PersonSegmenter:
        """See :class:`SegmenterFactory`."""
        if self.obstacle is not None:
            raise CheckpointError(self.obstacle)
        from pipeline.person_openvino import OpenVinoSegmenter

        return OpenVinoSegmenter(embedded(PERSON_IR))
