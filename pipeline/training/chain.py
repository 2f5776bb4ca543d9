"""The stages in their order: where each one's run lies, and what it begins with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from pipeline.errors import CheckpointError, ConfigError
from pipeline.tensors import fill
from pipeline.training import checkpoints

STUDENT_STAGES = ("unet", "warm-up", "one-step", "finish")
"""Those that change the student, each beginning with the one before."""


@dataclass(frozen=True)
class Chain:
    """The folder of one method's runs, and which stage is left out of them."""

    folder: Path
    without: str | None = None
    is_dry: bool = False
    """A dry run trains on whatever weights the networks begin with."""

    def __post_init__(self) -> None:
        if self.without is not None and self.without not in STUDENT_STAGES[:-1]:
            raise ConfigError(
                f"--without takes one of {', '.join(STUDENT_STAGES[:-1])} (got {self.without})"
            )

    def run_folder(self, stage: str) -> Path:
        """Where a stage's run lies: apart, if a stage before it was left out."""
        if self.without is not None and stage in STUDENT_STAGES:
            if stage == self.without:
                raise ConfigError(f'the stage "{stage}" is the one that is left out')
            if STUDENT_STAGES.index(stage) > STUDENT_STAGES.index(self.without):
                return self.folder / f"without-{self.without}" / stage
        return self.folder / stage

    def has(self, stage: str) -> bool:
        """Whether a stage has been trained, wholly or in part."""
        return (self.run_folder(stage) / checkpoints.FILE_NAME).exists()

    def before(self, stage: str) -> str | None:
        """The stage whose student a stage begins with; None for the teacher's remains."""
        if stage not in STUDENT_STAGES:
            return "one-step"
        earlier = STUDENT_STAGES[: STUDENT_STAGES.index(stage)]
        return next((name for name in reversed(earlier) if name != self.without), None)

    def load(self, stage: str, networks: Mapping[str, nn.Module]) -> None:
        """Fill networks with a stage's results.

        Raises:
            CheckpointError: the stage has not been trained, or does not fit.
        """
        if self.is_dry:
            return
        results = self._read(stage)
        for name, network in networks.items():
            if name not in results:
                raise CheckpointError(f'the stage "{stage}" of {self.folder} left no {name}')
            fill(network, results[name], f"{self.run_folder(stage)} ({name})")

    def _read(self, stage: str) -> dict[str, dict[str, Tensor]]:
        path = self.run_folder(stage) / checkpoints.FILE_NAME
        state = checkpoints.read(
            path, f'the stage "{stage}" comes first: there is no {path} (run.py train {stage})'
        )
        steps = json.loads(state["config"])["recipe"]["training"]["steps"]
        if state["step"] < steps:
            raise CheckpointError(
                f'the stage "{stage}" has come to step {state["step"]} of {steps}: finish it with '
                f"run.py train {stage} --resume"
            )
        results: dict[str, dict[str, Tensor]] = state["results"]
        return results
