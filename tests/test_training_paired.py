"""Paired distillation at tiny size: it learns, resumes, and stops with a sentence."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from disks import full_disk
from tiny_models import TINIEST

from pipeline.checkpoint import save_embedded
from pipeline.errors import CheckpointError, ConfigError
from pipeline.training.paired import Horizon, PairedConfig, Trainer, draw_strengths, measure
from pipeline.training.pairs import Shard, draw_batches

RECIPE = PairedConfig(
    TINIEST,
    batch=4,
    learning_rate=3e-2,
    warm_up_steps=2,
    grid_weight=4.0,
    pattern_styles=(TINIEST.styles[0].name,),
    ema_decay=0.9,
)


def make_shard(seed: int, side: int = 48) -> Shard:
    """Smooth photos; each style is a colour's share of the photo's negative."""
    random = np.random.default_rng(seed)
    coarse = random.integers(30, 226, (16, side // 16, side // 16, 3)).astype(np.float32)
    photos = coarse.repeat(16, axis=1).repeat(16, axis=2)
    styles = np.arange(16) % len(TINIEST.styles)
    tint = np.array([[1.0, 0.5, 0.2], [0.2, 1.0, 0.5], [0.5, 0.2, 1.0], [1.0, 1.0, 1.0]])
    targets = (255.0 - photos) * tint[styles][:, None, None]
    return Shard(photos.astype(np.uint8), targets.astype(np.uint8), styles)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    folder = tmp_path / "pairs"
    (folder / "train").mkdir(parents=True)
    for seed in range(2):
        shard = make_shard(seed, side=48 + 16 * seed)
        np.savez(
            folder / "train" / f"{seed}.npz",
            photos=shard.photos, targets=shard.targets, styles=shard.styles,
        )  # fmt: skip
    return folder


def make_trainer(folder: Path, config: PairedConfig = RECIPE) -> Trainer:
    folder.mkdir(parents=True, exist_ok=True)
    return Trainer(config, folder)


def assert_same(one: Trainer, other: Trainer) -> None:
    assert one.step == other.step
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name
        assert torch.equal(one.averaged[name], other.averaged[name]), name


def test_patterns_are_compared_in_the_styles_that_are_named(tmp_path: Path) -> None:
    """A batch of a style with an invented pattern has that loss, one of another style none."""
    trainer = make_trainer(tmp_path / "run")
    shard = make_shard(0)
    for style, has_pattern in ((0, True), (1, False)):
        rows = np.flatnonzero(shard.styles == style)
        losses = trainer.take_step(
            Shard(shard.photos[rows], shard.targets[rows], shard.styles[rows])
        )
        assert (losses["pattern"] > 0) == has_pattern


def test_training_learns(tmp_path: Path, pairs: Path) -> None:
    """Some steps of pairs bring the pictures nearer to their targets."""
    trainer = make_trainer(tmp_path / "run")
    held_out = make_shard(9)
    before = measure(trainer.averaged_model(), held_out)
    trainer.train(pairs, Horizon(30))
    after = measure(trainer.averaged_model(), held_out)
    assert np.mean(after["psnr"]) > np.mean(before["psnr"]) + 0.4
    assert np.mean(after["ssim"]) > np.mean(before["ssim"]) + 0.1
    with (tmp_path / "run" / "log.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["25"]


def test_resumed_run_gives_the_numbers_of_an_uninterrupted_one(
    tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is interrupted and resumed ends with the very same weights."""
    whole = make_trainer(tmp_path / "whole")
    whole.train(pairs, Horizon(7), save_every=3)
    cut = make_trainer(tmp_path / "cut")
    take_step = cut.take_step

    def interrupt(batch: Shard) -> dict[str, float]:
        if cut.step == 5:
            raise KeyboardInterrupt
        return take_step(batch)

    monkeypatch.setattr(cut, "take_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cut.train(pairs, Horizon(7), save_every=3)
    resumed = make_trainer(tmp_path / "cut")
    resumed.resume()
    assert resumed.step == 3
    resumed.train(pairs, Horizon(7), save_every=3)
    assert_same(resumed, whole)


def test_full_disk_leaves_the_checkpoint_before(tmp_path: Path, pairs: Path) -> None:
    """A checkpoint is written whole or not at all, and the run says that it could not be."""
    trainer = make_trainer(tmp_path / "run")
    trainer.train(pairs, Horizon(2))
    before = trainer.checkpoint.read_bytes()
    with full_disk(len(before) // 2), pytest.raises(CheckpointError, match="could not be written"):
        trainer.train(pairs, Horizon(4))
    assert trainer.checkpoint.read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoint.pt"]
    resumed = make_trainer(tmp_path / "run")
    resumed.resume()
    assert resumed.step == 2


def test_loss_that_is_no_number_stops_the_run(tmp_path: Path, pairs: Path) -> None:
    """NaN ends the run at its step with what to do, and the checkpoint before it stands."""
    trainer = make_trainer(tmp_path / "run")
    trainer.train(pairs, Horizon(2))
    before = trainer.checkpoint.read_bytes()
    with torch.no_grad():
        trainer.model.decoder.out.bias[0] = float("nan")
    with pytest.raises(ConfigError, match=r"the loss is nan at step 2.*lower the learning rate"):
        trainer.train(pairs, Horizon(4))
    assert trainer.checkpoint.read_bytes() == before


def test_nothing_to_resume_is_named(tmp_path: Path) -> None:
    """--resume without a checkpoint says where it looked."""
    with pytest.raises(CheckpointError, match=r"no checkpoint .*checkpoint\.pt to resume from"):
        make_trainer(tmp_path / "run").resume()


def test_truncated_checkpoint_is_named(tmp_path: Path, pairs: Path) -> None:
    """A checkpoint that was cut off is damaged, and is not read in part."""
    trainer = make_trainer(tmp_path / "run")
    trainer.train(pairs, Horizon(1))
    trainer.checkpoint.write_bytes(trainer.checkpoint.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt is damaged"):
        make_trainer(tmp_path / "run").resume()


def test_checkpoint_of_another_recipe_is_named(tmp_path: Path, pairs: Path) -> None:
    """A run goes on only with the recipe that it began with."""
    make_trainer(tmp_path / "run").train(pairs, Horizon(1))
    with pytest.raises(CheckpointError, match=r"was made with .*batch"):
        make_trainer(tmp_path / "run", replace(RECIPE, batch=2)).resume()


def test_missing_pairs_are_named(tmp_path: Path) -> None:
    """Without pairs the sentence says what makes them."""
    with pytest.raises(ConfigError, match=r'no training pairs in .*"run.py train pairs" makes'):
        make_trainer(tmp_path / "run").train(tmp_path / "nowhere", Horizon(1))


def test_batches_belong_to_their_step(pairs: Path) -> None:
    """Step n sees the same rows whether the run began before it or at it."""
    begun = draw_batches(pairs, 4, seed=0, start_step=0)
    for _ in range(5):
        next(begun)
    resumed = draw_batches(pairs, 4, seed=0, start_step=5)
    for _ in range(3):
        one, other = next(begun), next(resumed)
        assert (one.photos == other.photos).all()
        assert (one.styles == other.styles).all()


def test_learning_rate_warms_up_holds_and_decays() -> None:
    """Up in the first steps, then level, then to nothing over the last third."""
    config = replace(RECIPE, learning_rate=1.0, warm_up_steps=100)
    rates = [Horizon(1000).learning_rate(step, config) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[:100] == sorted(rates[:100])
    assert set(rates[100:650]) == {1.0}
    assert rates[650:] == sorted(rates[650:], reverse=True)
    assert rates[1000] == pytest.approx(0.0)


def test_strengths_are_mostly_one_some_zero_some_between() -> None:
    """Each share of a batch is what the recipe says."""
    random = torch.Generator().manual_seed(0)
    config = replace(RECIPE, camera_share=0.2, between_share=0.3)
    strength = draw_strengths(4000, config, random).flatten()
    assert (strength == 0).float().mean() == pytest.approx(0.2, abs=0.03)
    assert (strength == 1).float().mean() == pytest.approx(0.5, abs=0.03)
    assert ((strength >= 0) & (strength <= 1)).all()


def test_training_begins_with_given_weights(tmp_path: Path) -> None:
    """Weights that are trained on are those of the file, in the model and in the average."""
    given = make_trainer(tmp_path / "one").averaged_model()
    with torch.no_grad():
        for parameter in given.parameters():
            parameter.add_(0.25)
    save_embedded(given, tmp_path / "given.safetensors")
    trainer = make_trainer(tmp_path / "two")
    trainer.begin_from(tmp_path / "given.safetensors")
    for name, value in given.state_dict().items():
        assert torch.allclose(trainer.model.state_dict()[name], value, atol=2e-3), name
        assert torch.equal(trainer.averaged[name], trainer.model.state_dict()[name]), name
