"""The flags of ``run.py bench``, and which measurement they ask for."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.config import TINY_PRESET
from pipeline.errors import ConfigError
from pipeline.flags import add_engine

STEP, COMPARE, CARD, GLASS, SOAK, FLICKER = (
    "the step alone", "--compare", "--device cuda", "--glass", "--soak", "--flicker",
)  # fmt: skip
BENCH_FLAGS = {
    "runs": (STEP, COMPARE, CARD),
    "seconds": (GLASS,),
    "clip": (FLICKER,),
    "json": (STEP, COMPARE, CARD, FLICKER),
}
"""What each measurement of ``bench`` heeds besides the flags of a model."""


def add_measurements(parser: argparse.ArgumentParser) -> None:
    """The flags of ``bench``."""
    add_engine(parser, str(TINY_PRESET.default_size))
    parser.add_argument("--runs", type=int, default=60, help="frames to time")
    parser.add_argument(
        "--compare",
        action="store_true",
        help="in turn with the 26-style network, which needs [train]; another --model in turn "
        "with diffusers' own pipeline",
    )
    parser.add_argument(
        "--device", choices=("auto", "cuda"), default="auto", help="cuda: a card's whole row"
    )
    parser.add_argument(
        "--glass",
        choices=("bypass", "model"),
        help="glass to glass in a real Chromium, beside stock aiortc: the transport alone, "
        "or with the model",
    )
    parser.add_argument(
        "--soak",
        type=float,
        nargs="?",
        const=600.0,
        metavar="SECONDS",
        help="one long session with the model in a real Chromium, 600 s if no time is given: "
        "delay and memory, the first minute beside the last",
    )
    parser.add_argument(
        "--flicker", action="store_true", help="how alike consecutive pictures are; needs [train]"
    )
    parser.add_argument("--clip", type=Path, help="a video for --flicker to follow the motion of")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each --glass measurement")
    parser.add_argument("--json", action="store_true", help="only the JSON line")


def find_measurement(options: argparse.Namespace) -> str:
    """Return which measurement is asked for, by its flag.

    Raises:
        ConfigError: there are two, or it would not heed a flag that was given.
    """
    asked = {
        COMPARE: options.compare,
        CARD: options.device == "cuda",
        GLASS: options.glass is not None,
        SOAK: options.soak is not None,
        FLICKER: options.flicker,
    }
    got = [name for name, is_asked in asked.items() if is_asked]
    if len(got) > 1:
        raise ConfigError(
            f"bench takes one of {', '.join(asked)} at a time (got {' and '.join(got)})"
        )
    measurement = got[0] if got else STEP
    parser = argparse.ArgumentParser()
    add_measurements(parser)
    defaults = parser.parse_args([])
    for flag, heeded_by in BENCH_FLAGS.items():
        if measurement not in heeded_by and getattr(options, flag) != getattr(defaults, flag):
            raise ConfigError(f"--{flag} belongs to {', '.join(heeded_by)} (got {measurement})")
    return measurement
