"""The loop: resuming, accumulating, stopping at once with one sentence."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from disks import full_disk
from dry_runs import make_loop, make_method
from torch import Tensor, nn

from pipeline.errors import CheckpointError, ConfigError
from pipeline.training.draws import Draw, Place
from pipeline.training.logbook import Logbook
from pipeline.training.loop import Loop, Losses, Turn
from pipeline.training.methods import METHODS, StageConfig
from pipeline.training.processes import Processes
from pipeline.training.recipes import Recipe, Training
from pipeline.training.warm_stable_decay import share_at


def read(path: Path) -> dict[str, object]:
    return torch.load(path, weights_only=True)


def flatten(tree: object, name: str = "") -> dict[str, Tensor]:
    if isinstance(tree, Tensor):
        return {name: tree}
    branches = tree.items() if isinstance(tree, dict) else enumerate(tree)
    leaves: dict[str, Tensor] = {}
    for key, branch in branches:
        if isinstance(branch, Tensor | dict | list | tuple):
            leaves |= flatten(branch, f"{name}.{key}")
    return leaves


@pytest.mark.parametrize("stage", METHODS["tiny"].recipes)
def test_resumed_run_ends_with_the_numbers_of_an_uninterrupted_one(stage: str, tmp_path: Path):
    """Every weight, moment and average of a run that was interrupted is bit for bit the same."""
    method = make_method("tiny", stage, steps=3, ema_decay=0.9)
    whole = make_loop(method, stage, tmp_path / "whole")
    whole.run()
    make_loop(method, stage, tmp_path / "parts").run(until=1)
    second = make_loop(method, stage, tmp_path / "parts")
    second.resume()
    assert second.step == 1
    second.run()
    wanted, found = (flatten(read(loop.checkpoint)) for loop in (whole, second))
    assert list(wanted) == list(found)
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


class Line(nn.Module):
    """y = weight * x."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class LineStage:
    """Learns the weight 3, and can be told to fail."""

    results = ("line",)

    def __init__(self, training: Training, bad_from: int = 10**9) -> None:
        self.line = Line()
        self.networks = {"line": self.line}
        self.turns = [Turn.of("line", [self.line], self.loss, training)]
        self.bad_from = bad_from
        self.calls = 0

    def loss(self, draw: Draw) -> Losses:
        self.calls += 1
        x = draw.normal((4,))
        loss = ((self.line.weight - 3.0) * x).square().mean()
        return {"loss": loss * (float("nan") if self.calls > self.bad_from else 1.0)}

    def draw_pictures(self) -> list[Tensor]:
        return []


def make_line(folder: Path, bad_from: int = 10**9, **training: object) -> Loop:
    values = {"steps": 40, "batch": 4, "learning_rate": 0.3, "warm_up_steps": 1, "save_every": 10}
    chosen = Training(**(values | training))
    method = make_method()
    config = StageConfig("line", Recipe(chosen), method)
    return Loop(LineStage(chosen, bad_from), config, folder, Processes())


def test_loop_learns(tmp_path: Path):
    """The loop's steps lead to the answer."""
    loop = make_line(tmp_path)
    loop.run()
    assert loop.stage.line.weight.item() == pytest.approx(3.0, abs=0.3)


def test_accumulated_batches_are_one_step(tmp_path: Path):
    """The gradient of a step is the mean of those of its batches."""
    loop = make_line(tmp_path, steps=1, accumulate=3, clip_norm=1e9)
    loop.run()
    xs = [Draw(Place(0, 0, part=part)).normal((4,)) for part in range(3)]
    wanted = -6.0 * torch.stack([x.square().mean() for x in xs]).mean()
    assert loop.stage.line.weight.grad.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_loss_that_is_no_number_stops_at_once(tmp_path: Path):
    """The step is named, and the checkpoint before it stands."""
    with pytest.raises(ConfigError, match=r"loss of line is nan at step 15"):
        make_line(tmp_path, bad_from=15).run()
    again = make_line(tmp_path)
    again.resume()
    assert again.step == 10


def test_gradient_that_is_no_number_stops_at_once(tmp_path: Path):
    """A finite loss with an infinite slope is found too."""
    loop = make_line(tmp_path)
    stage = loop.stage

    def steep(draw: Draw) -> Losses:
        return {"loss": (stage.line.weight * 0.0 * draw.normal((1,))).sqrt().sum()}

    object.__setattr__(stage.turns[0], "loss", steep)
    with pytest.raises(ConfigError, match="norm of the gradient of line is nan"):
        loop.run()


def test_run_that_is_there_is_not_overwritten(tmp_path: Path):
    """Without --resume a folder that holds a run is refused."""
    make_line(tmp_path).run(until=10)
    with pytest.raises(ConfigError, match="--resume"):
        make_line(tmp_path).start()


def test_resuming_nothing_is_refused(tmp_path: Path):
    """There must be a checkpoint to go on from."""
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        make_line(tmp_path).resume()


def test_resuming_with_another_recipe_names_what_differs(tmp_path: Path):
    """The one value that changed is named with both its values."""
    make_line(tmp_path).run(until=10)
    with pytest.raises(CheckpointError, match=r"recipe\.training\.batch 4, not with 8"):
        make_line(tmp_path, batch=8).resume()


def test_full_disk_leaves_the_checkpoint_before(tmp_path: Path):
    """A checkpoint that does not fit is no checkpoint; the one before it can be resumed."""
    method = make_method("tiny", "teacher", steps=3)
    make_loop(method, "teacher", tmp_path).run(until=1)
    loop = make_loop(method, "teacher", tmp_path)
    loop.resume()
    with full_disk(20_000), pytest.raises(CheckpointError, match="could not be written"):
        loop.run()
    again = make_loop(method, "teacher", tmp_path)
    again.resume()
    assert again.step == 1
    assert not list(tmp_path.rglob("*.part"))


def test_full_disk_stops_the_log_with_a_sentence(tmp_path: Path):
    """A row that does not fit is an error; what was left of it is dropped on resuming."""
    path = tmp_path / "log.csv"
    loss = {"loss": torch.tensor(0.123456).item()}
    Logbook(path).write(10, loss)
    room = path.stat().st_size + 5
    with full_disk(room), pytest.raises(CheckpointError, match=r"log\.csv could not be written"):
        Logbook(path).write(20, loss)
    assert path.stat().st_size == room
    Logbook(path).forget_after(20)
    Logbook(path).write(20, loss)
    with path.open(newline="") as file:
        assert [(row["step"], row["loss"]) for row in csv.DictReader(file)] == [
            ("10", str(loss["loss"])),
            ("20", str(loss["loss"])),
        ]


def test_log_has_every_row_once_after_resuming(tmp_path: Path):
    """Rows of steps that are taken again are dropped first."""
    make_line(tmp_path, save_every=15).run(until=30)
    path = tmp_path / "log.csv"
    with path.open("a") as file:
        file.write("35,0,1.0\n")
    loop = make_line(tmp_path, save_every=15)
    loop.resume()
    loop.run()
    with path.open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == [10, 20, 30, 40]


def test_pictures_are_drawn_with_every_checkpoint(tmp_path: Path):
    """A person can see what a stage has learned."""
    loop = make_loop(make_method(), "teacher", tmp_path)
    loop.run()
    names = sorted(path.name for path in loop.folder.glob("*.jpg"))
    assert names == ["step-000001.jpg", "step-000002.jpg"]


def test_learning_rate_warms_up_holds_and_falls():
    """The schedule is a share of the full rate: up, flat, down to nothing."""
    found = [share_at(step, 100, 10, 0.5) for step in (0, 9, 49, 75, 100)]
    assert found == pytest.approx([0.1, 1.0, 1.0, 0.5, 0.0], abs=0.01)


def test_draws_belong_to_their_place():
    """The same place draws the same numbers; every other place draws others."""
    here = Draw(Place(0, 5, 1, 2, 3)).normal((4,))
    assert torch.equal(here, Draw(Place(0, 5, 1, 2, 3)).normal((4,)))
    others = (Place(1, 5, 1, 2, 3), Place(0, 6, 1, 2, 3), Place(0, 5, 0, 2, 3), Place(0, 5, 1, 2))
    assert not any(torch.equal(here, Draw(place).normal((4,))) for place in others)


@pytest.mark.parametrize("name", ["steps", "batch", "accumulate", "save_every"])
def test_training_of_nothing_is_refused(name: str):
    """A count below 1 is named with its value."""
    with pytest.raises(ConfigError, match=f"{name} must be at least 1"):
        Training(**({"steps": 1, "batch": 1} | {name: 0}))
