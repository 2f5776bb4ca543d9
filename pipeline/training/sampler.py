"""The few-step sampler psi: noise to picture with a multi-step teacher, the same every time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.training.denoiser import (
    Condition,
    Denoiser,
    add_noise,
    noise_level,
    predict_guided,
)

TIMESTEPS = 1000


@dataclass(frozen=True)
class Sampler:
    """How noise becomes a picture."""

    steps: int
    kind: Literal["ddim", "consistency"] = "ddim"
    """DDIM (arXiv 2010.02502) for a teacher that is straight enough; multi-step consistency
    sampling (arXiv 2303.01469, algorithm 1) for one made by latent consistency."""
    guidance_scale: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= TIMESTEPS:
            raise ConfigError(f"a sampler takes 1 to {TIMESTEPS} steps (got {self.steps})")

    def timesteps(self) -> list[int]:
        """From 999 down, evenly: the spacing called trailing, which always starts at 999."""
        return [round(TIMESTEPS - i * TIMESTEPS / self.steps) - 1 for i in range(self.steps)]

    @torch.no_grad()
    def draw(self, teacher: Denoiser, noise: Tensor, told: tuple[Condition, Condition]) -> Tensor:
        """Noise (B, C, h, w) → clean latents (B, C, h, w)."""
        *_, x_0 = self.iterate(teacher, noise, told)
        return x_0

    @torch.no_grad()
    def iterate(
        self, teacher: Denoiser, noise: Tensor, told: tuple[Condition, Condition]
    ) -> Iterator[Tensor]:
        """Yield the teacher's x_0 at every step; the last one is the picture."""
        # Consistency sampling renews the noise; drawn from the first, it stays a function of it.
        generator = torch.Generator().manual_seed(int(noise.sum().abs().item() * 1e3) % 2**31)
        x_t = noise
        steps = self.timesteps()
        for timestep, after in zip(steps, [*steps[1:], None], strict=True):
            now = torch.full((len(noise),), timestep, device=noise.device)
            x_0 = predict_guided(teacher, x_t, now, told, self.guidance_scale)
            yield x_0
            if after is None:
                return
            alpha, sigma = noise_level(now)
            eps = (x_t - alpha * x_0) / sigma
            if self.kind == "consistency":
                eps = torch.randn(noise.shape, generator=generator).to(noise)
            x_t = add_noise(x_0, eps, torch.full_like(now, after))
