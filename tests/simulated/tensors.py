"""Tensors that say ``cuda:0`` and hold real numbers on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

DEVICE = torch.device("cuda:0")


class RaceFound(AssertionError):
    """Two accesses to the same memory that nothing puts in order."""


Clock = dict[object, int]
"""What has surely happened: for each stream and for the host, how many of its operations."""


def merge(clock: Clock, other: Clock) -> None:
    """Learn what another has seen happen."""
    for actor, tick in other.items():
        clock[actor] = max(clock.get(actor, 0), tick)


class Memory:
    """One allocation: who wrote to it last, and who has read it since."""

    def __init__(self, contents: Tensor, name: str = "") -> None:
        self.address = address(contents)
        self.name = name or f"a tensor of shape {tuple(contents.shape)}"
        self.writer: tuple[object, int] | None = None
        self.readers: Clock = {}

    def read(self, actor: object, clock: Clock) -> None:
        """Note a read.

        Raises:
            RaceFound: the last write may not have happened yet.
        """
        self._check_write(actor, clock, "read")
        self.readers[actor] = clock[actor]

    def write(self, actor: object, clock: Clock) -> None:
        """Note a write.

        Raises:
            RaceFound: an earlier write, or a read of it, may not have happened yet.
        """
        self._check_write(actor, clock, "written")
        for reader, tick in self.readers.items():
            if clock.get(reader, 0) < tick:
                raise RaceFound(f"{self.name} is written by {actor} while {reader} may read it")
        self.writer = (actor, clock[actor])
        self.readers.clear()

    def _check_write(self, actor: object, clock: Clock, access: str) -> None:
        if self.writer and clock.get(self.writer[0], 0) < self.writer[1]:
            raise RaceFound(
                f"{self.name} is {access} by {actor} while {self.writer[0]} may be writing to it"
            )


class DeviceTensor(Tensor):
    """A tensor in the simulated device's memory; every operation on it goes to the device."""

    contents: Tensor
    memory: Memory

    @staticmethod
    def __new__(cls, contents: Tensor, memory: Memory) -> DeviceTensor:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined,no-any-return]
            cls,
            contents.size(),
            strides=contents.stride(),
            storage_offset=contents.storage_offset(),
            dtype=contents.dtype,
            device=DEVICE,
        )

    def __init__(self, contents: Tensor, memory: Memory) -> None:
        self.contents = contents
        self.memory = memory

    def __repr__(self) -> str:  # type: ignore[override]
        return f"DeviceTensor({self.contents!r})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        raise RuntimeError(f"{func} on a tensor of a simulated device that is not running")


def address(tensor: Tensor) -> int:
    """Return where a CPU tensor's storage begins."""
    return tensor.untyped_storage().data_ptr()


def poison(tensor: Tensor) -> None:
    """Fill with what nobody may mistake for a result."""
    tensor.fill_(float("nan") if tensor.is_floating_point() else 0x5A)
