"""The losses of the method, each on a case whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.training.adversarial import deceive, slope_at_real, tell_apart
from pipeline.training.denoiser import add_noise, noise_level
from pipeline.training.distillation import (
    decoder_distance,
    denoising,
    feature_distillation,
    output_distillation,
)
from pipeline.training.feature_matching import feature_matching, map_dists, map_ssim
from pipeline.training.losses import patch_distance, patch_grid, slide_mean, ssim
from pipeline.training.score_distillation import Segments, score_distillation


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_output_distillation_is_the_mean_square_and_teaches_the_student_only():
    """L_OKD of outputs that differ by 2 everywhere is 4, and the teacher gets no gradient."""
    teacher = noise(2, 4, 8, 8).requires_grad_()
    student = (teacher.detach() + 2.0).requires_grad_()
    loss = output_distillation(student, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(4.0)
    assert teacher.grad is None
    assert student.grad is not None


def test_feature_distillation_is_zero_on_equal_features():
    """L_FKD vanishes, and so does its gradient, where the student's features are the teacher's."""
    teacher = [noise(2, 4, 8, 8), noise(2, 8, 4, 4, seed=1)]
    student = [maps.clone().requires_grad_() for maps in teacher]
    loss = feature_distillation(student, teacher)
    loss.backward()
    assert loss.item() == 0.0
    assert all(maps.grad.abs().max() == 0.0 for maps in student)


def test_feature_distillation_counts_every_stage_alike():
    """A student that puts out zeros costs 1 a stage, however large the teacher's features are."""
    teacher = [100.0 * noise(2, 4, 8, 8), 0.01 * noise(2, 8, 4, 4, seed=1)]
    assert feature_distillation([0 * m for m in teacher], teacher).item() == pytest.approx(2.0)


def test_denoising_loss_is_least_at_the_mean_of_what_is_possible():
    """Of all constants, the mean of the targets has the least denoising loss."""
    target = noise(64, 1, 4, 4)
    best = denoising(target.mean().expand_as(target), target)
    assert all(denoising((target.mean() + d).expand_as(target), target) > best for d in (-0.1, 0.1))


def test_decoder_distance_sees_only_what_is_left_at_an_eighth():
    """L_VD's distance forgets a chequerboard, and sees a change of colour in full."""
    picture = torch.zeros(1, 3, 32, 32)
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2 * 2.0 - 1.0
    assert decoder_distance(picture + board, picture).item() == pytest.approx(0.0, abs=1e-7)
    assert decoder_distance(picture + 0.5, picture).item() == pytest.approx(0.5)


def test_ssim_of_equal_pictures_is_one():
    """Windowed SSIM is 1 for equal pictures."""
    picture = torch.rand(2, 3, 32, 32)
    assert ssim(picture, picture).tolist() == pytest.approx([1.0, 1.0])


def test_map_ssim_is_one_for_equal_maps_and_minus_one_for_opposite_ones():
    """Over a whole map without a mean, similarity is the correlation: 1 for x, -1 for -x."""
    maps = noise(2, 4, 16, 16)
    maps = maps - maps.mean(dim=(2, 3), keepdim=True)
    assert map_ssim(maps, maps).min().item() == pytest.approx(1.0)
    assert map_ssim(maps, -maps).max().item() == pytest.approx(-1.0, abs=2e-3)


def test_map_ssim_is_wangs_formula():
    """A constant shift of a map without variance leaves only the term of the means."""
    x, y = torch.full((1, 1, 4, 4), 1.0), torch.full((1, 1, 4, 4), 3.0)
    assert map_ssim(x, y).item() == pytest.approx((2 * 3 + 1e-4) / (1 + 9 + 1e-4))


def test_dists_form_is_half_texture_and_half_structure():
    """Equal means and no correlation leave the half that texture has."""
    x = 5.0 + noise(1, 1, 128, 128)
    y = 5.0 + noise(1, 1, 128, 128, seed=1)
    assert map_dists(x, x).item() == pytest.approx(1.0)
    assert map_dists(x, y).item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("form", ["ssim", "dists"])
def test_feature_matching_vanishes_on_equal_features_with_its_gradient(form: str):
    """L_FM is 0 at its least, and does not push away from there."""
    features = [noise(2, 4, 8, 8).requires_grad_()]
    loss = feature_matching(features, [features[0].detach().clone()], form=form)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert features[0].grad.abs().max().item() == pytest.approx(0.0, abs=1e-6)


def test_feature_matching_asks_for_contrast_where_squares_ask_for_the_mean():
    """Between two answers, squares are least at the flat mean, matching at full contrast."""
    one, other = noise(1, 1, 64, 64), noise(1, 1, 64, 64, seed=1)
    mean = (one + other) / 2
    sharp = mean * 2**0.5

    def squares(x: Tensor) -> float:
        return sum((x - y).square().mean().item() for y in (one, other))

    def matching(x: Tensor) -> float:
        return sum(feature_matching([x], [y]).item() for y in (one, other))

    assert squares(mean) < squares(sharp)
    assert matching(sharp) < matching(mean)


def gaussian_x_0(x_t: Tensor, timesteps: Tensor, mean: Tensor, variance: float) -> Tensor:
    """E[x_0 | x_t] of a Gaussian: what a perfect denoiser of it puts out."""
    alpha, sigma = noise_level(timesteps)
    gain = alpha * variance / (alpha**2 * variance + sigma**2)
    return mean + gain * (x_t - alpha * mean)


def test_score_distillation_vanishes_where_the_distributions_agree():
    """With the same score on both sides there is no gradient."""
    x_0 = noise(8, 2, 4, 4).requires_grad_()
    timesteps = torch.randint(20, 980, (8,))
    x_t = add_noise(x_0.detach(), noise(8, 2, 4, 4, seed=1), timesteps)
    same = gaussian_x_0(x_t, timesteps, torch.tensor(0.5), 1.0)
    score_distillation(x_0, same, same.clone()).backward()
    assert x_0.grad.abs().max() == 0.0


def test_score_distillation_gradient_is_the_weighted_difference_of_scores():
    """The gradient at x_0 is (online - offline) over the mean distance, per element."""
    x_0 = noise(1, 1, 2, 2).requires_grad_()
    offline, online = noise(1, 1, 2, 2, seed=1), noise(1, 1, 2, 2, seed=2)
    score_distillation(x_0, offline, online).backward()
    wanted = (online - offline) / (x_0.detach() - offline).abs().mean() / x_0.numel()
    assert torch.allclose(x_0.grad, wanted)


def test_score_distillation_moves_a_gaussians_mean_onto_the_teachers():
    """A student N(m, 1) whose score is known ends at the offline model's mean."""
    wanted = torch.tensor([1.5, -0.7]).view(1, 2, 1, 1)
    mean = nn.Parameter(torch.zeros(1, 2, 1, 1))
    optimizer = torch.optim.Adam([mean], 0.05)
    random = torch.Generator().manual_seed(0)
    for _ in range(300):
        x_0 = mean + torch.randn(64, 2, 4, 4, generator=random)
        timesteps = torch.randint(20, 980, (64,), generator=random)
        x_t = add_noise(x_0.detach(), torch.randn(x_0.shape, generator=random), timesteps)
        offline = gaussian_x_0(x_t, timesteps, wanted, 1.0)
        online = gaussian_x_0(x_t, timesteps, mean.detach(), 1.0)
        optimizer.zero_grad()
        score_distillation(x_0, offline, online).backward()
        optimizer.step()
    assert (mean - wanted).abs().max().item() < 0.05


def test_segments_fall_in_a_straight_line():
    """Alpha and the weight of matching go from their first to their last value."""
    segments = Segments(1.0, 0.5, 2.0, 0.0)
    assert [segments.alpha(p) for p in (0.0, 0.5, 1.0)] == [1.0, 0.75, 0.5]
    assert [segments.matching_weight(p) for p in (0.0, 0.5, 1.0)] == [2.0, 1.0, 0.0]


def test_hinge_losses_have_their_known_values():
    """A discriminator that is sure pays nothing; one that knows nothing pays 2."""
    sure, unsure = [torch.full((2, 1, 4, 4), 1.5)], [torch.zeros(2, 1, 4, 4)]
    assert tell_apart(sure, [-sure[0]]).item() == 0.0
    assert tell_apart(unsure, unsure).item() == 2.0
    assert deceive(sure).item() == -1.5


def test_slope_of_a_linear_critic_is_its_weight_squared():
    """R1 of w.x is |w|^2, wherever x is."""
    weight = noise(3, 4, 4)
    pictures = noise(5, 3, 4, 4, seed=1).requires_grad_()
    said = [(pictures * weight).sum(dim=(1, 2, 3), keepdim=True)]
    assert slope_at_real(said, [pictures]).item() == pytest.approx(weight.square().sum().item())


def test_slide_mean_and_its_gradient_are_those_of_average_pooling():
    x = torch.rand(2, 3, 20, 24, requires_grad=True)
    weights = torch.rand(2, 3, 14, 18)
    found, wanted = slide_mean(x), F.avg_pool2d(x, 7, 1)
    assert torch.allclose(found, wanted, atol=1e-6)
    (slope,) = torch.autograd.grad((found * weights).sum(), x)
    (wanted_slope,) = torch.autograd.grad((wanted * weights).sum(), x)
    assert torch.allclose(slope, wanted_slope, atol=1e-6)


def test_patch_grid_sees_what_repeats_in_every_patch_and_nothing_else():
    torch.manual_seed(0)
    targets = torch.rand(1, 3, 64, 64)
    grid = torch.tensor([0.1, -0.1, 0.1, -0.1]).repeat(16)
    assert patch_grid(targets + grid, targets, 4).item() == pytest.approx(0.01, rel=1e-4)
    assert patch_grid(targets + 0.1, targets, 4).item() == pytest.approx(0.0, abs=1e-9)
    # Noise of the same size is a sixty-fourth of it in the mean of 64 patches.
    noise = 0.1 * torch.randn(1, 3, 64, 64)
    assert patch_grid(targets + noise, targets, 4).item() < 0.01 / 30


def test_patch_distance_is_zero_for_the_same_patches_elsewhere_and_not_for_their_mean():
    random = torch.Generator().manual_seed(0)
    dots = torch.zeros(1, 3, 96, 96)
    dots[..., ::7, ::7] = 1.0  # no multiple of the stride
    moved = dots.roll((2, 1), dims=(2, 3))
    mean = torch.full_like(dots, dots.mean().item())
    far = patch_distance(mean, dots, random).item()
    assert patch_distance(dots, dots, random).item() == 0.0
    assert patch_distance(moved, dots, random).item() < 0.2 * far
    assert (moved - dots).abs().mean() > (mean - dots).abs().mean() * 0.9


def test_patch_distance_moves_a_flat_picture_to_the_pattern():
    """Descent from noise ends with the dots' contrast, where L1 ends with a flat picture."""
    random = torch.Generator().manual_seed(0)
    dots = torch.zeros(1, 1, 64, 64)
    dots[..., ::5, ::5] = 1.0
    picture = (0.05 * noise(1, 1, 64, 64)).requires_grad_()
    optimizer = torch.optim.Adam([picture], 0.02)
    for _ in range(100):
        optimizer.zero_grad()
        patch_distance(picture, dots, random).sum().backward()
        optimizer.step()
    assert picture.std().item() == pytest.approx(dots.std().item(), rel=0.4)
