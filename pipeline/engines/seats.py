"""Which session's memory lies in which row of a batch.

A session keeps its row while it can, so that its memory is copied only when sessions outnumber
rows or come and go.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.engines.engine import TemporalState


@dataclass(eq=False)
class Seated:
    """One session's memory; lies in its ``TemporalState``, which alone keeps it alive."""

    seats: Seats
    row: int | None = None
    """Where the memory lies on the device; None once it has left its row."""
    saved: Any = None
    """The memory, while it is in no row."""


@dataclass(frozen=True)
class Seat:
    """A job's place in a batch."""

    row: int
    is_first: bool
    """Whether the session has no memory yet."""


class Seats:
    """Seats sessions in rows.

    ``save(row)`` returns a copy of a row's memory; ``load(row, memory)`` puts it back, or starts
    afresh if it is None.
    """

    def __init__(
        self, rows: int, save: Callable[[int], Any], load: Callable[[int, Any], None]
    ) -> None:
        self._holders: list[weakref.ref[Seated] | None] = [None] * rows
        self._save = save
        self._load = load

    def seat(self, states: Sequence[TemporalState], width: int) -> list[Seat]:
        """Give each session a row below ``width``, with its memory in it.

        Memories of other sessions in those rows are saved: the batch will overwrite them,
        whether a session sits there or the row only fills the batch up.
        """
        known = [self._known(state) for state in states]
        kept = {
            id(seated): seated.row
            for seated in known
            if seated is not None and seated.row is not None and seated.row < width
        }
        taken = set(kept.values())
        free = [row for row in range(width) if row not in taken]
        for row in free:
            self._vacate(row)
        seats = []
        for state, seated in zip(states, known, strict=True):
            own_row = kept.get(id(seated)) if seated is not None else None
            if own_row is None:
                own_row = free.pop(0)
                self._occupy(state, seated, own_row)
            seats.append(Seat(own_row, seated is None))
        return seats

    def _known(self, state: TemporalState) -> Seated | None:
        memory = state.memory
        return memory if isinstance(memory, Seated) and memory.seats is self else None

    def _vacate(self, row: int) -> None:
        holder = self._holders[row]
        seated = holder() if holder is not None else None
        if seated is not None:
            seated.saved, seated.row = self._save(row), None
        self._holders[row] = None

    def _occupy(self, state: TemporalState, seated: Seated | None, row: int) -> None:
        if seated is None:
            seated = state.memory = Seated(self)
        elif seated.row is not None:
            self._vacate(seated.row)
        self._load(row, seated.saved)
        seated.row, seated.saved = row, None
        self._holders[row] = weakref.ref(seated)
