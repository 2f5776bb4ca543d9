"""Where in the picture the translation is shown: all of it, the person, or what is behind."""

from __future__ import annotations

import asyncio
import logging
import time

import cv2
from av import VideoFrame

from pipeline.errors import PipelineError
from pipeline.matte import Matte, refine
from pipeline.person_mask import SIDE_PX, PersonSegmenter, SegmenterFactory
from stream import frames
from stream.errors import ControlRefused

logger = logging.getLogger(__name__)

BOTH = "both"
PERSON = "person"
BACKGROUND = "background"
REGIONS = (BOTH, PERSON, BACKGROUND)


class RegionBlender:
    """Shows one session's camera wherever its translation is not wanted; in any one thread.

    The mask is made from the very frame that it is laid over, so it cannot be late.
    """

    def __init__(self, segmenter: PersonSegmenter) -> None:
        self._segmenter = segmenter
        self._matte = Matte()

    def blend(self, frame: VideoFrame, camera: VideoFrame, region: str) -> None:
        """Put the camera's picture back where ``region`` is not, in place.

        Args:
            frame: the translation, ``yuv420p``, of the camera's size made even.
            camera: its camera's frame; stays as it is.
            region: PERSON or BACKGROUND.

        Raises:
            PipelineError: the segmenter failed.
        """
        camera = frames.as_sendable(camera)
        image = frames.to_square(camera, SIDE_PX)
        mask = self._matte.follow(image, self._segmenter.segment(image))
        shown = refine(mask, frames.to_plane(camera, 0))
        if region == BACKGROUND:
            shown = 1.0 - shown
        for index in range(3):
            into, back = frames.to_plane(frame, index), frames.to_plane(camera, index)
            if index == 1:
                shown = cv2.resize(shown, into.shape[::-1], interpolation=cv2.INTER_AREA)
            into[:] = cv2.blendLinear(into, back, shown, 1.0 - shown)


class Segmenters:
    """Loads one segmenter for all sessions, when the first asks; used on the event loop."""

    def __init__(self, load: SegmenterFactory | None) -> None:
        self._load = load
        self._segmenter: PersonSegmenter | None = None
        self._loading = asyncio.Lock()

    @property
    def obstacle(self) -> str | None:
        """Why there is none, in one sentence; None if there is one, or probably can be."""
        if self._load is None:
            return "this server was started without a person's mask"
        return self._load.obstacle if self._segmenter is None else None

    async def make_blender(self) -> RegionBlender:
        """Return what shows one more session's regions.

        Raises:
            ControlRefused: there can be none; the sentence says why and what to do.
        """
        async with self._loading:
            if self._segmenter is None:
                self._segmenter = await self._load_one()
        return RegionBlender(self._segmenter)

    async def _load_one(self) -> PersonSegmenter:
        started_s = time.perf_counter()
        if self.obstacle is not None or self._load is None:
            raise ControlRefused(f"region must be {BOTH}: {self.obstacle}")
        try:
            segmenter = await asyncio.to_thread(self._load)
        except PipelineError as error:
            raise ControlRefused(f"region must be {BOTH}: {error}") from error
        logger.info("the person's mask is loaded, in %.1f s", time.perf_counter() - started_s)
        return segmenter

    def to_json(self) -> list[dict[str, str | None]]:
        """Return the regions by name, each with the reason why it cannot be had, or None."""
        return [
            {"name": region, "obstacle": None if region == BOTH else self.obstacle}
            for region in REGIONS
        ]
