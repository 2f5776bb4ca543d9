"""``torch.cuda.Stream`` and ``torch.cuda.Event`` of the simulated device."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from simulated.guard import culprit
from simulated.tensors import Clock, Memory, merge

if TYPE_CHECKING:
    from simulated.device import SimulatedDevice


class Stream:
    """``torch.cuda.Stream``: work in order, and in no order with anything else."""

    def __init__(self, device: SimulatedDevice, name: str) -> None:
        self.name = name
        self.clock: Clock = {self: 0}
        self.pending: list[tuple[int, Callable[[], None]]] = []
        self._device = device

    def __repr__(self) -> str:
        return self.name

    def __cuda_stream__(self) -> tuple[int, int]:
        return (0, 0)

    def enqueue(self, reads: list[Memory], writes: list[Memory]) -> None:
        """Add one operation, which starts after all that the host knows of."""
        merge(self.clock, self._device.host_clock)
        self.clock[self] += 1
        for memory in reads:
            memory.read(self, self.clock)
        for memory in writes:
            memory.write(self, self.clock)

    def wait_event(self, event: Event) -> None:
        """Let later work here wait for what ``event`` marks."""
        merge(self.clock, event.clock)

    def wait_stream(self, other: Stream) -> None:
        """Let later work here wait for all work of another stream so far."""
        merge(self.clock, other.clock)

    def record_event(self, event: Event) -> Event:
        """Mark the work so far."""
        event.record(self)
        return event

    def synchronize(self) -> None:
        """Let the host wait for all work so far."""
        self._device.refuse_in_capture("Stream.synchronize()")
        self._device.stalls.append(f"Stream.synchronize() at {culprit()}")
        self._device.host_learns(self.clock)


class Event:
    """``torch.cuda.Event``: a mark in a stream."""

    def __init__(
        self, device: SimulatedDevice, enable_timing: bool = False, blocking: bool = False
    ) -> None:
        self.clock: Clock = {}
        self._device = device
        self._timed = enable_timing
        self._blocking = blocking
        self._recorded_s = 0.0

    def record(self, stream: Stream | None = None) -> None:
        """Mark the work of a stream so far."""
        self.clock = dict((stream or self._device.current[-1]).clock)
        self._recorded_s = time.perf_counter()

    def wait(self, stream: Stream | None = None) -> None:
        """Let later work of a stream wait for the mark."""
        (stream or self._device.current[-1]).wait_event(self)

    def synchronize(self) -> None:
        """Let the host wait for the mark; an event that is not blocking makes it spin."""
        self._device.refuse_in_capture("Event.synchronize()")
        if not self._blocking:
            self._device.stalls.append(f"a spinning wait at {culprit()}")
        self._device.host_learns(self.clock)

    def query(self) -> bool:
        """Tell whether the host has seen the mark pass."""
        seen = self._device.host_clock
        return all(seen.get(actor, 0) >= tick for actor, tick in self.clock.items())

    def elapsed_time(self, later: Event) -> float:
        """Return the milliseconds between two marks."""
        for event in (self, later):
            assert event._timed, "an event without enable_timing has no time"
        return (later._recorded_s - self._recorded_s) * 1e3
