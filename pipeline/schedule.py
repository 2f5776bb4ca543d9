"""The noise schedule, and the one step as one fixed linear map.

diffusers' schedulers keep state on the host and cannot be captured in a CUDA graph; one
step needs none of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Prediction = Literal["epsilon", "v_prediction"]

FIRST_BETA, LAST_BETA = 0.00085, 0.012
"""Stable Diffusion's, of the ``scaled_linear`` schedule."""
LAST_TIMESTEP = 999
"""Where SDXS starts: T - 1 of 1000 training timesteps."""


def make_alphas_cumprod(timesteps: int = 1000) -> Tensor:
    """Stable Diffusion's ``scaled_linear`` schedule.

    Returns:
        (timesteps,) float64; alphas_cumprod[999] is 0.004660.
    """
    betas = torch.linspace(FIRST_BETA**0.5, LAST_BETA**0.5, timesteps, dtype=torch.float64) ** 2
    return torch.cumprod(1.0 - betas, dim=0)


@dataclass(frozen=True)
class OneStep:
    """x_0 = sample_weight * x_t + output_weight * network_output (DDPM, eq. 15 solved for x_0).

    With ``"epsilon"`` the output is multiplied by 14.6 at t = 999, and so is its error;
    with ``"v_prediction"`` (arXiv 2202.00512, appendix D) by 0.998. The released SDXS
    networks predict epsilon, ``sdxs-tiny`` predicts v.
    """

    sample_weight: float
    output_weight: float

    @classmethod
    def at(cls, timestep: int, prediction: Prediction) -> OneStep:
        """The map for one timestep in [0, 999]."""
        alpha = float(make_alphas_cumprod()[timestep]) ** 0.5
        sigma = (1.0 - alpha**2) ** 0.5
        if prediction == "epsilon":
            return cls(1.0 / alpha, -sigma / alpha)
        return cls(alpha, -sigma)

    def predict_x0(self, x_t: Tensor, network_output: Tensor) -> Tensor:
        """(B, C, h, w), (B, C, h, w) → x_0 (B, C, h, w)."""
        return self.sample_weight * x_t + self.output_weight * network_output


def add_noise(x_0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """x_t = alpha * x_0 + sigma * noise (DDPM, eq. 4); alpha and sigma broadcast over x_0."""
    return alpha * x_0 + sigma * noise


def to_x0(x_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor, kind: Prediction) -> Tensor:
    """The same map as :class:`OneStep` where every row has a timestep of its own."""
    if kind == "epsilon":
        return (x_t - sigma * output) / alpha
    return alpha * x_t - sigma * output
