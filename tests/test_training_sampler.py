"""The denoiser's conversions, the few-step sampler and the features of a U-Net."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.training import networks
from pipeline.training.denoiser import (
    Condition,
    Denoiser,
    Prediction,
    add_noise,
    noise_level,
    predict_guided,
)
from pipeline.training.features import EncoderFeatures, record, run_encoder, stage_ends
from pipeline.training.methods import METHODS, make_dry
from pipeline.training.sampler import Sampler

TOLD = Condition(torch.zeros(1, 1, 1))


class GaussianDenoiser(Denoiser):
    """The perfect denoiser of N(mean, variance), which no U-Net has to be trained for."""

    def __init__(self, mean: float, variance: float, prediction: Prediction = "epsilon") -> None:
        nn.Module.__init__(self)
        self.mean, self.variance, self.prediction = mean, variance, prediction

    def forward(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        alpha, sigma = noise_level(timesteps)
        gain = alpha * self.variance / (alpha**2 * self.variance + sigma**2)
        x_0 = self.mean + gain * (x_t - alpha * self.mean) + condition.tokens.mean()
        return self.target(x_0, (x_t - alpha * x_0) / sigma, timesteps)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_target_converts_back_to_x_0(prediction: Prediction):
    """A network that puts out its target knows x_0."""
    denoiser = GaussianDenoiser(0.0, 1.0, prediction)
    x_0, noise = torch.randn(4, 2, 4, 4), torch.randn(4, 2, 4, 4)
    timesteps = torch.tensor([0, 300, 700, 999])
    x_t = add_noise(x_0, noise, timesteps)
    again = denoiser.to_x_0(denoiser.target(x_0, noise, timesteps), x_t, timesteps)
    assert torch.allclose(again, x_0, atol=1e-4)


def test_timesteps_begin_at_999_and_are_even():
    """The spacing is the trailing one, which the one-step student needs."""
    assert Sampler(1).timesteps() == [999]
    assert Sampler(4).timesteps() == [999, 749, 499, 249]


def test_sampler_takes_at_least_one_step():
    """A sampler of no steps is refused with the number that it got."""
    with pytest.raises(ConfigError, match="got 0"):
        Sampler(0)


def test_sampler_draws_a_point_in_one_step():
    """A distribution without variance is drawn exactly, in however few steps."""
    noise = torch.randn(4, 2, 4, 4)
    drawn = Sampler(1).draw(GaussianDenoiser(0.7, 0.0), noise, (TOLD, TOLD))
    assert torch.allclose(drawn, torch.full_like(drawn, 0.7), atol=1e-4)


def test_sampler_draws_a_gaussian_better_in_more_steps():
    """DDIM turns standard noise into N(1, 1/4) of the teacher, nearer with more steps."""
    noise = torch.randn(64, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    teacher = GaussianDenoiser(1.0, 0.25)
    deviations = [Sampler(n).draw(teacher, noise, (TOLD, TOLD)).std().item() for n in (2, 8, 64)]
    assert abs(deviations[2] - 0.5) < abs(deviations[1] - 0.5) < abs(deviations[0] - 0.5)
    assert deviations[2] == pytest.approx(0.5, abs=0.03)


def test_consistency_sampler_is_a_function_of_its_noise():
    """Noise that is renewed on the way is renewed in the same way every time."""
    noise = torch.randn(2, 2, 4, 4)
    sampler = Sampler(4, kind="consistency")
    teacher = GaussianDenoiser(1.0, 0.25)
    first, again = (sampler.draw(teacher, noise, (TOLD, TOLD)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, sampler.draw(teacher, noise + 0.1, (TOLD, TOLD)))


def test_guidance_goes_beyond_what_the_prompt_changes():
    """At twice the guidance the prompt's effect on x_0 is twice as large."""
    denoiser = GaussianDenoiser(0.0, 1.0)
    x_t, timesteps = torch.randn(2, 2, 4, 4), torch.tensor([300, 600])
    told = replace(TOLD, tokens=torch.ones(1, 1, 1))
    plain = denoiser.predict_x_0(x_t, timesteps, TOLD)
    once = predict_guided(denoiser, x_t, timesteps, (told, TOLD), 1.0) - plain
    twice = predict_guided(denoiser, x_t, timesteps, (told, TOLD), 2.0) - plain
    assert torch.allclose(twice, 2 * once, atol=1e-4)
    assert once.abs().mean() > 0.5


@pytest.mark.parametrize("name", METHODS)
def test_encoder_features_are_those_of_the_whole_network(name: str):
    """The way down alone gives what it gives when the whole U-Net runs."""
    method = make_dry(METHODS[name])
    layout = method.teacher
    torch.manual_seed(0)
    denoiser = Denoiser(networks.build_unet(layout), method.prediction)
    pooled_dim = layout.pooled_dim or layout.text_time_dim
    told = Condition(
        torch.randn(2, 3, layout.cross_attention_dim),
        torch.randn(2, pooled_dim) if pooled_dim else None,
        torch.randn(2, 4, 8, 8) if layout.in_channels == 2 * layout.out_channels else None,
    )
    x_t, timesteps = torch.randn(2, layout.out_channels, 8, 8), torch.tensor([20, 600])
    with torch.no_grad(), record(stage_ends(list(denoiser.unet.down_blocks))) as wanted:
        denoiser(x_t, timesteps, told)
        features = run_encoder(denoiser, x_t, timesteps, told)
    assert len(features) == len(layout.block_out_channels)
    assert all(torch.equal(a, b) for a, b in zip(features, wanted, strict=False))


def test_encoder_features_pass_gradients_to_the_latents():
    """A frozen extractor still says how the latents should change."""
    method = make_dry(METHODS["sdxs-512"])
    denoiser = Denoiser(networks.build_unet(method.teacher), method.prediction)
    denoiser.requires_grad_(False)
    latents = torch.randn(1, 4, 8, 8, requires_grad=True)
    told = Condition(torch.randn(1, 3, method.teacher.cross_attention_dim))
    torch.stack([m.mean() for m in EncoderFeatures(denoiser, 20)(latents, told)]).sum().backward()
    assert latents.grad.abs().sum() > 0
