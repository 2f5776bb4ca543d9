"""One process or several, one GPU each: ``accelerate launch run.py train ...``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from pipeline.errors import ConfigError


class Processes:
    """This process among those that train together.

    Gradients are summed once a step, after all of its batches: with the batches of a GPU
    cluster that is rare enough to need no overlap with the computation, and the networks
    stay as they are. Weights agree because every process starts from the same seed or file.
    """

    def __init__(self) -> None:
        self.rank = 0
        self.count = 1
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._accelerator: Any = None
        expected = int(os.environ.get("WORLD_SIZE", "1"))
        if expected > 1:
            self._accelerator = start_accelerator()
            self.rank = self._accelerator.process_index
            self.count = self._accelerator.num_processes
            if self.count != expected:
                raise ConfigError(
                    f"{expected} processes were launched and {self.count} found each other"
                )
            self.device = str(self._accelerator.device)

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and progress."""
        return self.rank == 0

    def share(self, batches: int) -> Sequence[int]:
        """Which of a step's batches this process has.

        Raises:
            ConfigError: they cannot be shared out evenly.
        """
        if batches % self.count:
            raise ConfigError(
                f"{self.count} processes cannot share {batches} batches a step evenly; "
                "the recipe's accumulate must be a multiple of their number"
            )
        each = batches // self.count
        return range(self.rank * each, (self.rank + 1) * each)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every process the sum of all processes' gradients."""
        if self._accelerator is None:
            return
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = self._accelerator.reduce(parameter.grad, reduction="sum")

    def wait(self) -> None:
        """Wait until every process is here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()


def start_accelerator() -> Any:
    """Join the other processes.

    Raises:
        ConfigError: the package accelerate is not there.
    """
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise ConfigError(
            f"several processes need the extra [cluster]: pip install '.[cluster]' ({error})"
        ) from error
    # Without a GPU accelerate forms no group unless it is told to do without.
    return Accelerator(cpu=not torch.cuda.is_available())
