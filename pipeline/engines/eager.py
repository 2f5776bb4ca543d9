"""The reference engine: torch without graph or compiler, one picture at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.config import check_size
from pipeline.engines.engine import Image, Job, PixelFormat, Size
from pipeline.errors import EngineClosed
from pipeline.loaded import LoadedModel
from pipeline.noise import make_noise
from pipeline.translate import StepInputs


class EagerEngine:
    """Runs a model's :class:`pipeline.translate.Step` as it stands."""

    name = "eager"
    pixel_format: PixelFormat = "rgb24"
    max_batch = 1

    def __init__(self, model: LoadedModel, size: Size, threads: int = 2) -> None:
        torch.set_num_threads(threads)
        self.size = check_size(size, model.size_step_px)
        self.model = model.name
        self.device = f"CPU, {threads} threads, torch {torch.__version__} in float32"
        self._channels = model.latent_channels
        self._step = model.to(torch.device("cpu"), torch.float32).step
        self.encode_prompt = model.encode_prompt
        self.styles = model.styles
        self.default_strength = model.default_strength
        self._is_closed = False

    def translate(self, jobs: Sequence[Job]) -> list[Image]:
        """See :class:`pipeline.engines.engine.Engine`."""
        if self._is_closed:
            raise EngineClosed("the eager engine was used after it was closed")
        return [self._translate_one(job) for job in jobs]

    def close(self) -> None:
        """See :class:`pipeline.engines.engine.Engine`."""
        self._is_closed = True

    @torch.inference_mode()
    def _translate_one(self, job: Job) -> Image:
        images, job.state.memory = self._step(*self._to_inputs(job))
        return np.asarray(images[0].numpy())

    def _to_inputs(self, job: Job) -> StepInputs:
        shape = (self._channels, self.size.height // 8, self.size.width // 8)
        memory = job.state.memory
        is_first = not isinstance(memory, Tensor)
        if is_first:
            memory = torch.zeros(1, 3, self.size.height, self.size.width)
        stability = 0.0 if is_first else job.settings.stability
        return StepInputs(
            torch.from_numpy(np.array(job.image[None])),
            memory,
            torch.from_numpy(np.array(make_noise(job.settings.seed, shape)))[None],
            torch.from_numpy(job.conditioning.tokens)[None],
            torch.from_numpy(job.conditioning.pooled)[None],
            torch.full((1, 1, 1, 1), job.settings.strength),
            torch.full((1, 1, 1, 1), stability),
        )
