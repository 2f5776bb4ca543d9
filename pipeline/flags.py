"""The flags of ``run.py`` that choose a model and an engine."""

from __future__ import annotations

import argparse

from pipeline.config import MODEL_PRESETS, TINY_PRESET, Lines
from pipeline.engines.build import ENGINE_NAMES, EngineConfig
from pipeline.engines.engine import Size
from pipeline.engines.precision import PRECISIONS


def add_engine(parser: argparse.ArgumentParser, automatic_size: str) -> None:
    """The flags that choose a model and an engine."""
    presets = ", ".join(preset.name for preset in MODEL_PRESETS)
    parser.add_argument(
        "--model",
        default=TINY_PRESET.name,
        help=f"{presets}; a folder in diffusers' layout; or a hub id, owner/name or "
        "owner/name@revision. All but the first two want a CUDA card for video, and are "
        "downloaded when they are first used",
    )
    parser.add_argument(
        "--lora",
        default="",
        help='a look for --model: "anime" for sdxs-512, a file of safetensors, or a folder',
    )
    parser.add_argument(
        "--line-thickness",
        type=int,
        help=f"1 to 5, of the lines that a control network is shown; {Lines().thickness} if left "
        "out",
    )
    parser.add_argument(
        "--line-detail",
        type=float,
        help=f"0 to 1: how faint an edge may be to be drawn; {Lines().detail} if left out",
    )
    parser.add_argument("--engine", choices=ENGINE_NAMES, default="auto", help="what runs it")
    parser.add_argument(
        "--size",
        default="auto",
        help=f'pixels the model works at, "320x240" or "256"; auto for {automatic_size}',
    )
    parser.add_argument("--threads", type=int, default=0, help="of the processor; 0 for all")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="of --engine openvino; auto: bf16 for the first two models where the processor "
        "multiplies it, else f32",
    )


def to_engine_config(options: argparse.Namespace) -> EngineConfig:
    """Check the flags of :func:`add_engine`."""
    size = None if options.size == "auto" else Size.parse(options.size)
    asked = {"thickness": options.line_thickness, "detail": options.line_detail}
    given = {name: value for name, value in asked.items() if value is not None}
    lines = Lines(**given) if given else None
    return EngineConfig(
        model=options.model,
        engine=options.engine,
        size=size,
        threads=options.threads,
        lora=options.lora,
        lines=lines,
        precision=options.precision,
    )
