"""The noise schedule against its published constants and diffusers' schedulers."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from diffusers import DDPMScheduler, EulerDiscreteScheduler

from pipeline.schedule import LAST_TIMESTEP, OneStep, add_noise, make_alphas_cumprod

STABLE_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}


@pytest.mark.parametrize(
    ("timestep", "alpha_cumprod"),
    [(300, 0.5905), (500, 0.276), (700, 0.0825), (900, 0.01415), (999, 0.004660)],
)
def test_alphas_cumprod_are_the_published_ones(timestep: int, alpha_cumprod: float) -> None:
    """The schedule has Stable Diffusion's values."""
    assert float(make_alphas_cumprod()[timestep]) == pytest.approx(alpha_cumprod, rel=2e-3)


def test_alphas_cumprod_are_those_of_diffusers() -> None:
    """All thousand values agree with the reference."""
    reference = DDPMScheduler(**STABLE_DIFFUSION).alphas_cumprod.double()
    assert torch.allclose(make_alphas_cumprod(), reference, rtol=1e-4)


def test_step_constants_at_the_last_timestep() -> None:
    """x_0 = 14.649 x_t - 14.615 eps: where SDXS starts, an error in eps grows so much."""
    step = OneStep.at(LAST_TIMESTEP, "epsilon")
    assert step.sample_weight == pytest.approx(14.649, abs=1e-3)
    assert step.output_weight == pytest.approx(-14.6146, abs=1e-3)
    step = OneStep.at(LAST_TIMESTEP, "v_prediction")
    assert step.sample_weight == pytest.approx(0.06826, abs=1e-5)
    assert step.output_weight == pytest.approx(-0.99767, abs=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("timestep", [0, 261, 999])
def test_predict_x0_agrees_with_ddpm(
    prediction: Literal["epsilon", "v_prediction"], timestep: int
) -> None:
    """One linear map gives what diffusers' stateful scheduler gives."""
    torch.manual_seed(0)
    x_t, output = torch.randn(2, 2, 4, 8, 8)
    scheduler = DDPMScheduler(**STABLE_DIFFUSION, prediction_type=prediction, clip_sample=False)
    reference = scheduler.step(output, timestep, x_t).pred_original_sample
    x_0 = OneStep.at(timestep, prediction).predict_x0(x_t, output)
    assert torch.allclose(x_0, reference, rtol=1e-4, atol=1e-4)


def test_one_step_agrees_with_euler_and_trailing_spacing() -> None:
    """The released SDXS' own scheduler, asked for one step, takes the same one."""
    torch.manual_seed(0)
    x_t, eps = torch.randn(2, 1, 4, 8, 8)
    euler = EulerDiscreteScheduler(**STABLE_DIFFUSION, timestep_spacing="trailing")
    euler.set_timesteps(1)
    assert int(euler.timesteps[0]) == LAST_TIMESTEP
    sigma = euler.sigmas[0]
    reference = euler.step(eps, euler.timesteps[0], x_t * (sigma**2 + 1) ** 0.5).prev_sample
    x_0 = OneStep.at(LAST_TIMESTEP, "epsilon").predict_x0(x_t, eps)
    assert torch.allclose(x_0, reference, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("timestep", [0, 500, 999])
def test_predict_x0_undoes_add_noise(timestep: int) -> None:
    """With the true noise, and with the true velocity, x_0 comes back."""
    torch.manual_seed(0)
    x_0, noise = torch.randn(2, 1, 4, 8, 8, dtype=torch.float64)
    alpha = make_alphas_cumprod()[timestep] ** 0.5
    sigma = (1 - alpha**2) ** 0.5
    x_t = add_noise(x_0, noise, alpha, sigma)
    velocity = alpha * noise - sigma * x_0
    assert torch.allclose(OneStep.at(timestep, "epsilon").predict_x0(x_t, noise), x_0)
    assert torch.allclose(OneStep.at(timestep, "v_prediction").predict_x0(x_t, velocity), x_0)
