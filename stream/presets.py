"""Presets and playlists: looks by name, and an order of them with times; parse and check."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from stream.controls import Changes, parse_changes
from stream.errors import ControlRefused, RequestRefused

T = TypeVar("T")

LOOK = ("prompt", "strength", "stability", "seed", "transition_s")
"""The controls that a preset may set; what it leaves out stays as it is."""
MAX_ENTRIES = 200
MAX_STEPS = 200
MIN_STEP_S = 0.1
MAX_STEP_S = 86_400.0  # a day
_NAME = re.compile(r"\w(?:[\w .-]{0,62}[\w.-])?")


@dataclass(frozen=True, slots=True)
class Preset:
    """A look with a name."""

    name: str
    look: Changes

    def to_json(self) -> dict[str, Any]:
        """Return it as the page shows it."""
        return {"name": self.name, **self.look}


@dataclass(frozen=True, slots=True)
class Step:
    """A preset, and how long it is shown."""

    preset: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Playlist:
    """Presets one after the other."""

    name: str
    steps: tuple[Step, ...]
    loop: bool = False
    """Begin again after the last one; otherwise that one stays."""

    def to_json(self) -> dict[str, Any]:
        """Return it as the page shows it."""
        return {"name": self.name, "loop": self.loop, "steps": [asdict(s) for s in self.steps]}


@dataclass(frozen=True, slots=True)
class Book:
    """All presets and playlists, in the order of their file; and what is wrong with the rest."""

    presets: Mapping[str, Preset] = field(default_factory=dict)
    playlists: Mapping[str, Playlist] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    """A sentence for each entry that cannot be used, or one for a file that cannot be read."""

    def preset(self, name: str) -> Preset:
        """Return a preset.

        Raises:
            RequestRefused: 404, there is none of this name.
        """
        return _find("preset", name, self.presets)

    def playlist(self, name: str) -> Playlist:
        """Return a playlist.

        Raises:
            RequestRefused: 404, there is none of this name.
        """
        return _find("playlist", name, self.playlists)


def _find(kind: str, name: str, entries: Mapping[str, T]) -> T:
    entry = entries.get(name)
    if entry is None:
        known = f"there are {', '.join(list(entries)[:20])}" if entries else "there is none yet"
        raise RequestRefused(404, f"no {kind} is named {name[:64]!a}; {known}")
    return entry


def check_name(name: str) -> str:
    """Return a name that an entry may have.

    Raises:
        ControlRefused: it may not.
    """
    if not _NAME.fullmatch(name):
        raise ControlRefused(
            "a name has 1 to 64 letters, digits, spaces and . _ -, and begins with a letter or "
            f"digit (got {name[:64]!a})"
        )
    return name


def parse_preset(name: str, values: object) -> Preset:
    """Check a look.

    Raises:
        ControlRefused: it is none, or sets nothing.
    """
    check_name(name)
    if isinstance(values, dict):
        for key in values:
            if key not in LOOK:
                raise ControlRefused(
                    f"a preset has {', '.join(LOOK)}, and nothing is named {str(key)[:40]!a}"
                )
    look = parse_changes(values)
    if not look:
        raise ControlRefused(f"a preset sets at least one of {', '.join(LOOK)}")
    return Preset(name, {key: look[key] for key in LOOK if key in look})


def parse_playlist(name: str, values: object) -> Playlist:
    """Check a playlist; whether its presets exist is not known here.

    Raises:
        ControlRefused: it is none.
    """
    check_name(name)
    if not isinstance(values, dict) or not values.keys() <= {"steps", "loop"}:
        raise ControlRefused(
            'a playlist is an object such as {"steps": [{"preset": "evening", "seconds": 30}], '
            '"loop": true}'
        )
    loop, rows = values.get("loop", False), values.get("steps")
    if not isinstance(loop, bool):
        raise ControlRefused(f"loop must be true or false (got {str(loop)[:40]!a})")
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_STEPS:
        raise ControlRefused(f"steps is a list of 1 to {MAX_STEPS} presets with their seconds")
    steps = tuple(_parse_step(number, row) for number, row in enumerate(rows, 1))
    return Playlist(name, steps, loop)


def _parse_step(number: int, row: object) -> Step:
    if not isinstance(row, dict) or row.keys() != {"preset", "seconds"}:
        raise ControlRefused(
            f'step {number} must be like {{"preset": "evening", "seconds": 30}} '
            f"(got {str(row)[:60]!a})"
        )
    preset, seconds = row["preset"], row["seconds"]
    if not isinstance(preset, str):
        raise ControlRefused(f"preset in step {number} must be a name (got {str(preset)[:40]!a})")
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not is_number or not MIN_STEP_S <= seconds <= MAX_STEP_S or not math.isfinite(seconds):
        raise ControlRefused(
            f"seconds in step {number} must be a number from {MIN_STEP_S:g} to {MAX_STEP_S:g} "
            f"(got {str(seconds)[:40]!a})"
        )
    return Step(preset, float(seconds))


def find_missing(playlist: Playlist, presets: Mapping[str, Preset]) -> str | None:
    """Return the first preset that a playlist names and that there is not."""
    return next((step.preset for step in playlist.steps if step.preset not in presets), None)
