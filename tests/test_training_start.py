"""Starting stages: a dry run of every config, and what is missing said in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dry_runs import make_loop, make_method

from pipeline.config import STYLES
from pipeline.errors import CheckpointError, ConfigError
from pipeline.training.chain import Chain
from pipeline.training.methods import METHODS
from pipeline.training.pairs import Shard
from pipeline.training.processes import Processes
from pipeline.training.stages import METHOD_STAGES, StageOptions, run_stage
from pipeline.training.styled import PairFolder, RandomPairs
from pipeline.training.text import read_prompts

DRY_RUNS = [(name, stage) for name, method in METHODS.items() for stage in method.recipes]


@pytest.mark.parametrize(("name", "stage"), DRY_RUNS)
def test_dry_run_takes_two_steps(name: str, stage: str, caplog: pytest.LogCaptureFixture):
    """Every stage of every config trains two steps with random weights, and leaves no file."""
    caplog.set_level("INFO")
    run_stage(stage, StageOptions(config=name, is_dry=True, folder=Path("never-written")))
    assert f"a dry run of {stage} with {name}: two steps taken" in caplog.text
    assert not Path("never-written").exists()


def test_every_stage_of_the_command_line_is_in_a_config():
    """No stage is offered that no config has, and none is hidden."""
    offered = set(METHOD_STAGES) - {"table"}
    assert offered == {stage for method in METHODS.values() for stage in method.recipes}


def test_unknown_config_is_refused_with_those_there_are():
    """A config that is not there is named beside those that are."""
    with pytest.raises(ConfigError, match=r'no training config "sdxs".*sdxs-512'):
        run_stage("unet", StageOptions(config="sdxs"))


def test_stage_that_a_config_lacks_is_refused():
    """A teacher that is taken from elsewhere is not trained."""
    with pytest.raises(ConfigError, match='"sdxs-512" has no stage "teacher"'):
        run_stage("teacher", StageOptions(config="sdxs-512"))


def test_missing_pairs_are_said_to_be_missing(tmp_path: Path):
    """Without data a stage stops before its first step, and says what makes it."""
    with pytest.raises(ConfigError, match=r"run\.py train pairs"):
        run_stage("autoencoder", StageOptions(data=tmp_path, folder=tmp_path))


def test_prompted_config_needs_a_teacher_and_prompts(tmp_path: Path):
    """Both flags are named."""
    with pytest.raises(ConfigError, match=r"--teacher FOLDER.*--prompts FILE"):
        run_stage("unet", StageOptions(config="sdxs-512", folder=tmp_path))


def test_prompts_are_read_a_line_each(tmp_path: Path):
    """Empty lines are no prompts."""
    path = tmp_path / "prompts.txt"
    path.write_text("a fox\n\n  a harbour \n", encoding="utf-8")
    assert read_prompts(path) == ["a fox", "a harbour"]


@pytest.mark.parametrize("content", [None, b"\n\n", b"\xff\xfe"])
def test_prompts_that_are_none_are_refused(tmp_path: Path, content: bytes | None):
    """A file that is missing, empty or no text is named."""
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"prompts\.txt"):
        read_prompts(path)


def write_pairs(folder: Path, side: int) -> None:
    (folder / "train").mkdir(parents=True)
    random = np.random.default_rng(0)
    for path in (folder / "train" / "001-0000.npz", folder / "held-out.npz"):
        photos = random.integers(0, 256, (6, side, side, 3), dtype=np.uint8)
        np.savez(path, photos=photos, targets=255 - photos, styles=np.arange(6))


def test_stage_before_is_named_when_it_is_missing(tmp_path: Path):
    """A stage that needs another's result says which, and how to make it."""
    write_pairs(tmp_path / "pairs", 128)
    with pytest.raises(CheckpointError, match=r"run\.py train autoencoder"):
        run_stage("teacher", StageOptions(data=tmp_path, folder=tmp_path / "runs"))


def test_pairs_are_cut_alike(tmp_path: Path):
    """Photo and target are cut at the same corner; held-out ones are cut in the middle."""
    write_pairs(tmp_path, 96)
    pairs = PairFolder(tmp_path, 64, styles=())
    drawn = pairs.draw(np.random.default_rng(0), 4)
    assert drawn.photos.shape == (4, 64, 64, 3)
    assert np.array_equal(drawn.targets, 255 - drawn.photos)
    held_out = pairs.held_out(3)
    whole = Shard.load(tmp_path / "held-out.npz")
    assert np.array_equal(held_out.photos[0], whole.photos[0, 16:80, 16:80])
    assert held_out.styles.tolist() == [0, 2, 5]


def test_pairs_of_some_styles_are_all_that_is_drawn(tmp_path: Path):
    """A config's styles are kept; held-out pairs give every square when few are left."""
    write_pairs(tmp_path, 96)
    pairs = PairFolder(tmp_path, 48, styles=(STYLES[1].name, STYLES[4].name))
    assert set(pairs.draw(np.random.default_rng(0), 32).styles) == {1, 4}
    held_out = pairs.held_out(8)
    assert held_out.styles.tolist() == [1, 4] * 4
    whole = Shard.load(tmp_path / "held-out.npz").photos[4]
    assert np.array_equal(held_out.photos[3], whole[:48, 48:])
    assert np.array_equal(held_out.photos[7], whole[48:, 48:])
    with pytest.raises(ConfigError, match="8 squares of 48 px, not the 9"):
        pairs.held_out(9)


def test_pairs_without_the_trained_styles_are_refused(tmp_path: Path):
    """A shard that has nothing to draw is named."""
    write_pairs(tmp_path, 96)
    pairs = PairFolder(tmp_path, 48, styles=(STYLES[20].name,))
    with pytest.raises(ConfigError, match=r"001-0000\.npz holds no pair of the styles"):
        pairs.draw(np.random.default_rng(0), 2)


@pytest.mark.parametrize("kept_bytes", [0, 1000])
def test_damaged_pairs_are_named(tmp_path: Path, kept_bytes: int):
    """A file of pairs that was cut short is said to be so, and what to do."""
    write_pairs(tmp_path, 96)
    path = tmp_path / "train" / "001-0000.npz"
    path.write_bytes(path.read_bytes()[:kept_bytes])
    pairs = PairFolder(tmp_path, 48, styles=())
    with pytest.raises(ConfigError, match=r"001-0000\.npz cannot be read.*delete the file"):
        pairs.draw(np.random.default_rng(0), 2)


def test_random_pairs_belong_to_their_generator():
    """A dry run's pictures can be had again."""
    first, again = (RandomPairs(64).draw(np.random.default_rng(3), 2) for _ in range(2))
    assert np.array_equal(first.photos, again.photos)


def test_chain_without_a_stage_lies_apart_from_there_on():
    """Only the stages after the one that is left out have a folder of their own."""
    chain = Chain(Path("runs/tiny"), without="warm-up")
    assert chain.run_folder("unet") == Path("runs/tiny/unet")
    assert chain.run_folder("one-step") == Path("runs/tiny/without-warm-up/one-step")
    assert chain.before("one-step") == "unet"
    assert Chain(Path("runs/tiny")).before("one-step") == "warm-up"
    assert Chain(Path("runs/tiny")).before("unet") is None


def test_chain_cannot_lack_what_it_runs():
    """Leaving a stage out and running it is refused, as is leaving out what is no such stage."""
    with pytest.raises(ConfigError, match="left out"):
        Chain(Path("runs"), without="unet").run_folder("unet")
    with pytest.raises(ConfigError, match="--without takes one of"):
        Chain(Path("runs"), without="teacher")


def test_processes_share_a_step_evenly():
    """One process has all of a step's batches."""
    assert list(Processes().share(4)) == [0, 1, 2, 3]


def test_processes_that_cannot_share_evenly_are_refused():
    """Three processes cannot have four batches."""
    processes = Processes()
    processes.count, processes.rank = 3, 1
    assert list(processes.share(6)) == [2, 3]
    with pytest.raises(ConfigError, match="multiple"):
        processes.share(4)


def test_several_processes_without_accelerate_name_the_extra(monkeypatch: pytest.MonkeyPatch):
    """A launcher's environment asks for a package that only clusters need."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(__import__("sys").modules, "accelerate", None)
    with pytest.raises(ConfigError, match=r"\[cluster\]"):
        Processes()


def test_stage_that_is_not_finished_is_not_built_upon(tmp_path: Path):
    """Half-trained weights are not taken for a stage's result."""
    loop = make_loop(make_method("tiny", "autoencoder", steps=3), "autoencoder", tmp_path)
    loop.run(until=1)
    chain = Chain(tmp_path / "tiny")
    with pytest.raises(CheckpointError, match="has come to step 1 of 3"):
        chain.load("autoencoder", {})
    loop.run()
    chain.load("autoencoder", {"encoder": loop.stage.networks["encoder"]})
