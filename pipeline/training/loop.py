"""The loop of every stage: steps, checkpoints, log and pictures.

A stage says what is trained and by which losses; the loop takes the steps. A resumed run
gives the numbers that an uninterrupted one would have given.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.errors import ConfigError
from pipeline.tensors import fill
from pipeline.training import checkpoints
from pipeline.training.draws import Draw, Place
from pipeline.training.logbook import Logbook, write_picture
from pipeline.training.methods import StageConfig
from pipeline.training.processes import Processes
from pipeline.training.recipes import Training
from pipeline.training.warm_stable_decay import share_at

LOG_EVERY = 10
"""Steps."""

Losses = dict[str, Tensor]
"""Scalars by name; the one called loss is what is trained."""


@dataclass(frozen=True)
class Turn:
    """One optimizer's part of a step."""

    name: str
    networks: Sequence[nn.Module]
    """What it changes."""
    loss: Callable[[Draw], Losses]
    optimizer: torch.optim.Optimizer
    repeats: int = 1
    parameters: list[nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        found = [p for network in self.networks for p in network.parameters() if p.requires_grad]
        object.__setattr__(self, "parameters", found)

    @classmethod
    def of(
        cls,
        name: str,
        networks: Sequence[nn.Module],
        loss: Callable[[Draw], Losses],
        training: Training,
        learning_rate: float | None = None,
        repeats: int = 1,
    ) -> Turn:
        """A turn with AdamW; ``learning_rate`` where it is not the recipe's own."""
        parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters,
            learning_rate or training.learning_rate,
            betas=training.betas,
            weight_decay=training.weight_decay,
        )
        for group in optimizer.param_groups:
            group["full_lr"] = group["lr"]
        return cls(name, networks, loss, optimizer, repeats)


class Stage(Protocol):
    """What is trained, and how."""

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """All that training changes, by name."""
        ...

    @property
    def results(self) -> Sequence[str]:
        """Those of them that later stages read."""
        ...

    @property
    def turns(self) -> Sequence[Turn]:
        """What a step consists of."""
        ...

    def draw_pictures(self) -> list[Tensor]:
        """Rows of pictures (N, 3, H, W) in [-1, 1], to be seen by a person."""
        ...


class Loop:
    """One training run in a folder."""

    def __init__(
        self, stage: Stage, config: StageConfig, folder: Path, processes: Processes
    ) -> None:
        self.stage = stage
        self.training = config.recipe.training
        self.config = config
        self.folder = folder
        self.step = 0
        self._processes = processes
        self._parts = processes.share(self.training.accumulate)
        self._log = Logbook(folder / "log.csv")
        self._averaged = self._states(stage.results)
        if self.training.ema_decay:
            self._averaged = copy.deepcopy(self._averaged)

    def _states(self, names: Iterable[str]) -> dict[str, dict[str, Tensor]]:
        return {name: self.stage.networks[name].state_dict() for name in names}

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files."""
        return self._processes.is_first

    @property
    def checkpoint(self) -> Path:
        """The file that :meth:`resume` and later stages read."""
        return self.folder / checkpoints.FILE_NAME

    def start(self) -> None:
        """Begin anew.

        Raises:
            ConfigError: there is a run in the folder already.
        """
        if self.checkpoint.exists():
            raise ConfigError(
                f"{self.folder} holds a run already: go on with --resume, or name another --folder"
            )
        if self.is_first:
            self._log.forget_after(0)

    @torch.no_grad()
    def resume(self) -> None:
        """Go on from the folder's checkpoint.

        Raises:
            CheckpointError: there is none, or it is damaged or of another recipe.
        """
        state = checkpoints.load(self.checkpoint, self.config)
        for name, network in self.stage.networks.items():
            fill(network, state["networks"][name], f"{self.checkpoint} ({name})")
        for turn in self.stage.turns:
            turn.optimizer.load_state_dict(state["optimizers"][turn.name])
        for name, values in self._averaged.items():
            for key, value in values.items():
                value.copy_(state["results"][name][key])
        self.step = state["step"]
        if self.is_first:
            self._log.forget_after(self.step)

    def run(self, until: int | None = None) -> None:
        """Train to the recipe's last step, or to ``until``.

        Raises:
            ConfigError: a loss or a gradient is not a number.
            CheckpointError: the disk is full.
        """
        last = min(until or self.training.steps, self.training.steps)
        hidden = not self.is_first
        progress = tqdm(total=last, initial=self.step, unit="step", disable=hidden)
        while self.step < last:
            losses = self._take_step()
            self.step += 1
            progress.update()
            is_last = self.step == last
            if self.step % LOG_EVERY == 0 or is_last:
                progress.set_postfix({k: f"{v:.4g}" for k, v in losses.items()})
                if self.is_first:
                    self._log.write(self.step, losses)
            if self.step % self.training.save_every == 0 or is_last:
                self._save()
        progress.close()

    def _take_step(self) -> dict[str, float]:
        losses: dict[str, float] = {}
        for index, turn in enumerate(self.stage.turns):
            for repeat in range(turn.repeats):
                found = self._take_turn(turn, index, repeat)
            prefix = f"{turn.name}." if len(self.stage.turns) > 1 else ""
            losses |= {prefix + name: value for name, value in found.items()}
        self._average()
        return losses

    def _take_turn(self, turn: Turn, index: int, repeat: int) -> dict[str, float]:
        training = self.training
        # 1. The gradient of all of this process's batches.
        turn.optimizer.zero_grad(set_to_none=True)
        total: dict[str, float] = {}
        for part in self._parts:
            place = Place(training.seed, self.step, index, repeat, part)
            draw = Draw(place, self.step / training.steps, self._processes.device)
            with self._autocast():
                losses = turn.loss(draw)
            for name, value in losses.items():
                total[name] = total.get(name, 0.0) + value.item() / len(self._parts)
            self._check(turn.name, total)
            (losses["loss"] / training.accumulate).backward()  # type: ignore[no-untyped-call]
        # 2. That of all processes.
        self._processes.sum_gradients(turn.parameters)
        norm = nn.utils.clip_grad_norm_(turn.parameters, training.clip_norm)
        self._check(turn.name, {"norm of the gradient": float(norm)})
        # 3. The step.
        share = share_at(self.step, training.steps, training.warm_up_steps, training.decay_share)
        for group in turn.optimizer.param_groups:
            group["lr"] = group["full_lr"] * share
        turn.optimizer.step()
        return total

    def _autocast(self) -> torch.autocast:
        device = self._processes.device.split(":")[0]
        is_half = self.training.precision == "bf16"
        return torch.autocast(device, torch.bfloat16, enabled=is_half)

    def _check(self, turn: str, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                raise ConfigError(
                    f"the {name} of {turn} is {value} at step {self.step}; the checkpoint before "
                    "it stands: lower the learning rate and resume"
                )

    @torch.no_grad()
    def _average(self) -> None:
        if not self.training.ema_decay:
            return
        # The average starts short, so that it forgets the random weights at once.
        decay = min(self.training.ema_decay, (1 + self.step) / (10 + self.step))
        for network, values in self._averaged.items():
            for name, value in self.stage.networks[network].state_dict().items():
                if value.is_floating_point():
                    values[name].lerp_(value, 1.0 - decay)
                else:
                    values[name].copy_(value)

    def _save(self) -> None:
        if self.is_first:
            state: dict[str, Any] = {
                "config": checkpoints.describe(self.config),
                "step": self.step,
                "networks": self._states(self.stage.networks),
                "optimizers": {t.name: t.optimizer.state_dict() for t in self.stage.turns},
                "results": self._averaged,
            }
            checkpoints.save(self.checkpoint, state)
            if rows := self.stage.draw_pictures():
                write_picture(self.folder / f"step-{self.step:06}.jpg", rows)
        self._processes.wait()
