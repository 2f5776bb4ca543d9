"""Sessions keep their memories, whoever comes, goes or fills a batch up."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engines.engine import TemporalState
from pipeline.engines.seats import Seats

ROWS = 4


class Rows:
    """Rows whose memory is a list of names; every batch appends to all of its rows."""

    def __init__(self) -> None:
        self.memories: list[tuple[str, ...]] = [("nobody",)] * ROWS
        self.copies = 0
        self.seats = Seats(ROWS, self.save, self.load)

    def save(self, row: int) -> tuple[str, ...]:
        self.copies += 1
        return self.memories[row]

    def load(self, row: int, memory: tuple[str, ...] | None) -> None:
        self.copies += memory is not None
        self.memories[row] = memory or ()

    def run(self, states: dict[str, TemporalState], names: list[str], width: int) -> dict:
        """Run a batch; return each session's memory afterwards."""
        seats = self.seats.seat([states[name] for name in names], width)
        assert len({seat.row for seat in seats}) == len(names)
        assert all(seat.row < width for seat in seats)
        for row in range(width):
            self.memories[row] += ("filling",)
        for name, seat in zip(names, seats, strict=True):
            assert seat.is_first == (self.memories[seat.row] == ("filling",))
            self.memories[seat.row] = (*self.memories[seat.row][:-1], name)
        return {n: self.memories[seat.row] for n, seat in zip(names, seats, strict=True)}


@pytest.fixture
def states() -> dict[str, TemporalState]:
    """Six sessions."""
    return {name: TemporalState() for name in "abcdef"}


batches = st.lists(
    st.tuples(
        st.lists(st.sampled_from("abcdef"), min_size=1, max_size=ROWS, unique=True),
        st.sampled_from([0, 1, 2]),
        st.sampled_from(["", "a", "b", "c"]),
    ),
    max_size=30,
)


@given(batches)
def test_every_session_keeps_its_own_memory(script):
    """In any order, with any filling and forgetting, a session finds all it ever stored."""
    rows = Rows()
    states = {name: TemporalState() for name in "abcdef"}
    expected: dict[str, tuple[str, ...]] = {}
    for names, filling, forgotten in script:
        if forgotten:
            states[forgotten].forget()
            expected.pop(forgotten, None)
        for name in names:
            expected[name] = (*expected.get(name, ()), name)
        memories = rows.run(states, names, min(ROWS, len(names) + filling))
        assert memories == {name: expected[name] for name in names}


def test_a_session_alone_is_never_copied(states):
    """One viewer's memory stays in its row."""
    rows = Rows()
    for _ in range(5):
        rows.run(states, ["a"], 1)
    assert rows.copies == 0


def test_sessions_that_change_places_stay_seated(states):
    """The order of a batch's jobs does not matter to who sits where."""
    rows = Rows()
    rows.run(states, ["a", "b", "c"], 4)
    rows.run(states, ["c", "a", "b"], 4)
    assert rows.copies == 0


def test_a_row_that_fills_up_a_batch_is_saved_first(states):
    """A session that is not in the batch does not lose its memory to the filling."""
    rows = Rows()
    rows.run(states, ["a", "b"], 2)
    rows.run(states, ["a"], 2)
    assert rows.run(states, ["b"], 1) == {"b": ("b", "b")}


def test_a_session_that_has_left_is_not_saved(states):
    """Nobody copies the memory of a session that is gone, or of one that has forgotten it."""
    rows = Rows()
    rows.run(states, ["a", "b"], 2)
    del states["a"]
    states["b"].forget()
    gc.collect()
    rows.run(states, ["c", "d"], 2)
    assert rows.copies == 0


def test_memories_of_other_seats_are_not_known(states):
    """A memory that another engine made counts as none."""
    one, other = Rows(), Rows()
    one.run(states, ["a"], 1)
    assert other.run(states, ["a"], 1) == {"a": ("a",)}
    states["a"].memory = object()
    assert one.run(states, ["a"], 1) == {"a": ("a",)}
