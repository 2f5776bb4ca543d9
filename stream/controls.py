"""What a viewer may change: one schema for the data channel, HTTP and query strings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.engines import Engine, Settings
from stream.errors import ControlRefused
from stream.region import BOTH, REGIONS

MAX_MESSAGE_BYTES = 16 * 1024
MAX_PROMPT_CHARACTERS = 1000
MAX_SEED = 2**31 - 1
MAX_TRANSITION_S = 10.0

Changes = Mapping[str, Any]
"""Some of the fields of :class:`Controls`, checked."""


@dataclass(frozen=True, slots=True)
class Controls:
    """The settings of one session. Replaced as a whole, so they apply all or none."""

    prompt: str = ""
    """A style's name or words; empty is the model's first style."""
    strength: float | None = None
    """In [0, 1]: from the camera's picture to the full style; None: what suits the model."""
    seed: int = 0
    """In [0, 2**31): which noise."""
    stability: float = 0.5
    """In [0, 1]: how strongly consecutive frames are kept alike."""
    transition_s: float = 0.6
    """In [0, 10]: how long a change of prompt takes to cross-fade."""
    bypass: bool = False
    """Send the camera's own frames."""
    freeze: bool = False
    """Hold the last translated picture; ``bypass`` goes before it."""
    region: str = BOTH
    """"both": the translation is all of the picture; "person" or "background": only of that, and
    the rest is the camera's."""
    marks: bool = False
    """Carry the top lines of the camera's picture past the model: they hold marks by which a
    page measures glass to glass."""

    def changed(self, changes: Changes) -> Controls:
        """Return these settings with ``changes``, from one of the parse functions."""
        return replace(self, **changes)

    def with_strength(self, default_strength: float) -> Controls:
        """Return these settings with a model's own strength where none was set."""
        return self if self.strength is not None else replace(self, strength=default_strength)

    def settings_for(self, engine: Engine) -> Settings:
        """What of this an engine takes with every frame."""
        strength = engine.default_strength if self.strength is None else self.strength
        return Settings(strength, self.seed, self.stability)

    def to_json(self) -> dict[str, Any]:
        """Return all settings by name."""
        return asdict(self)


def parse_json(text: str | bytes) -> Any:
    """Read one JSON value of at most 16 KiB.

    Raises:
        ControlRefused: it is too large, or not JSON (RFC 8259, which knows no NaN).
    """
    size_bytes = len(text.encode(errors="replace") if isinstance(text, str) else text)
    if size_bytes > MAX_MESSAGE_BYTES:
        raise ControlRefused(f"a message may have {MAX_MESSAGE_BYTES} bytes (got {size_bytes})")
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise ControlRefused(f"the message is not JSON (got {_shown(text)})") from None


def parse_changes(values: object) -> Changes:
    """Check some settings, given as a JSON object.

    Raises:
        ControlRefused: not an object, an unknown name, a wrong type or a value out of range.
    """
    if not isinstance(values, dict):
        raise ControlRefused(
            f'settings are an object such as {{"strength": 0.5}} (got {_shown(values)})'
        )
    return {name: _check(name, value) for name, value in values.items()}


def parse_query(query: Mapping[str, str]) -> Changes:
    """Check some settings, given as the query of an URL.

    Raises:
        ControlRefused: an unknown name, a wrong type or a value out of range.
    """
    return {name: _check(name, _from_query(name, text)) for name, text in query.items()}


def _from_query(name: str, text: str) -> object:
    if name == "prompt":
        return text
    if _CHECKERS.get(name) is _flag and text in ("0", "1"):
        return text == "1"
    try:
        return parse_json(text)
    except ControlRefused:
        return text


def _check(name: str, value: object) -> object:
    checker = _CHECKERS.get(name)
    if name in _UNGUIDED:
        raise ControlRefused(f"{name} is not taken: a model of one step has no guidance to use it")
    if checker is None:
        known = ", ".join(_CHECKERS)
        raise ControlRefused(f"no setting is named {_shown(name)}; there are {known}")
    return checker(name, value)


def _prompt(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ControlRefused(f"{name} must be text (got {_shown(value)})")
    if len(value) > MAX_PROMPT_CHARACTERS:
        raise ControlRefused(
            f"{name} may have {MAX_PROMPT_CHARACTERS} characters (got {len(value)})"
        )
    if not value.isprintable():
        raise ControlRefused(f"{name} must be one line of printable text (got {_shown(value)})")
    return value


def _seed(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ControlRefused(f"{name} must be a whole number (got {_shown(value)})")
    if not 0 <= value <= MAX_SEED:
        raise ControlRefused(f"{name} must be from 0 to {MAX_SEED} (got {_shown(value)})")
    return value


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ControlRefused(f"{name} must be true or false (got {_shown(value)})")
    return value


def _number(low: float, high: float) -> Callable[[str, object], float]:
    def check(name: str, value: object) -> float:
        # bool is an int to Python, but true is not a number to whoever wrote the message.
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ControlRefused(f"{name} must be a number (got {_shown(value)})")
        if not low <= value <= high or not math.isfinite(value):
            raise ControlRefused(f"{name} must be from {low:g} to {high:g} (got {_shown(value)})")
        return float(value)

    return check


def _choice(choices: Sequence[str]) -> Callable[[str, object], str]:
    def check(name: str, value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ControlRefused(
                f"{name} must be one of {', '.join(choices)} (got {_shown(value)})"
            )
        return value

    return check


_CHECKERS: dict[str, Callable[[str, object], object]] = {
    "prompt": _prompt,
    "strength": _number(0, 1),
    "seed": _seed,
    "stability": _number(0, 1),
    "transition_s": _number(0, MAX_TRANSITION_S),
    "bypass": _flag,
    "freeze": _flag,
    "region": _choice(REGIONS),
    "marks": _flag,
}


_UNGUIDED = frozenset({"negative_prompt", "guidance_scale"})
"""What people know from models of many steps; to ignore it would be to mislead."""


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _shown(value: object) -> str:
    """Return at most 60 characters of a value that came from outside."""
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
