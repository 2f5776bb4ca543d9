"""``torch.cuda.CUDAGraph`` on the simulated device: records operations, replays them in place."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from simulated.guard import tensors_of
from simulated.tensors import Memory, address, poison

if TYPE_CHECKING:
    from simulated.device import SimulatedDevice


@dataclass
class Recorded:
    """One kernel: what it runs on and where its results go, by address."""

    func: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    outputs: list[Tensor]
    in_place: bool

    def run(self) -> None:
        """Run again, on the same memory."""
        results = tensors_of(self.func(*self.args, **self.kwargs))
        if not self.in_place:
            for output, result in zip(self.outputs, results, strict=True):
                output.copy_(result)


@dataclass(eq=False)
class Recording:
    """A captured graph: frozen Python values, fixed addresses, nothing of the host's work."""

    pool: list[Recording]
    """Graphs that share memory for intermediate results; a replay overwrites the others'."""
    kernels: list[Recorded] = field(default_factory=list)
    reads: weakref.WeakSet[Memory] = field(default_factory=weakref.WeakSet)
    writes: weakref.WeakSet[Memory] = field(default_factory=weakref.WeakSet)
    external: dict[int, str] = field(default_factory=dict)
    own: set[int] = field(default_factory=set)
    before: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def add(self, kernel: Recorded, reads: list[Memory], writes: list[Memory]) -> None:
        """Record a kernel that has just run to learn its results' shapes."""
        self.kernels.append(kernel)
        if not kernel.in_place:
            self.own.update(address(output) for output in kernel.outputs)
        for accessed, memories in ((self.reads, reads), (self.writes, writes)):
            for memory in memories:
                if memory.address not in self.own:
                    accessed.add(memory)
                    self.external[id(memory)] = memory.name

    def keep(self, contents: Tensor) -> None:
        """Remember memory from outside the graph before a kernel changes it."""
        key = address(contents)
        if key not in self.own and key not in self.before:
            whole = contents.as_strided(
                (contents.untyped_storage().nbytes() // contents.itemsize,), (1,), 0
            )
            self.before[key] = (whole, whole.clone())

    def finish(self) -> None:
        """End the capture, in which a real device computes nothing."""
        for whole, contents in self.before.values():
            whole.copy_(contents)
        self.before.clear()
        self.forget_results()
        self.pool.append(self)

    def forget_results(self) -> None:
        """Overwrite all intermediate results."""
        for kernel in self.kernels:
            if not kernel.in_place:
                for output in kernel.outputs:
                    poison(output)

    def replay(self) -> None:
        """Run the kernels again.

        Raises:
            RuntimeError: memory that the graph reads or writes has been freed.
        """
        alive = {id(memory) for memory in (*self.reads, *self.writes)}
        for key, name in self.external.items():
            if key not in alive:
                raise RuntimeError(f"the graph uses {name}, which has been freed")
        with _disable_current_modes():
            for other in self.pool:
                if other is not self:
                    other.forget_results()
            for kernel in self.kernels:
                kernel.run()


class Graph:
    """``torch.cuda.CUDAGraph``."""

    def __init__(self, device: SimulatedDevice) -> None:
        self.recording: Recording | None = None
        self._device = device

    def replay(self) -> None:
        """Run the recorded kernels on the current stream."""
        if self.recording is None:
            raise RuntimeError("a graph that holds nothing was replayed")
        self._device.replays += 1
        stream = self._device.current[-1]
        stream.enqueue(list(self.recording.reads), list(self.recording.writes))
        self.recording.replay()

    def reset(self) -> None:
        """Drop what was recorded."""
        if self.recording is not None and self.recording in self.recording.pool:
            self.recording.pool.remove(self.recording)
        self.recording = None
