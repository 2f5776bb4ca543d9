"""Which numbers the processor's engine computes with."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Precision = Literal["auto", "f32", "bf16"]
Numbers = Literal["f32", "bf16"]
"""What :func:`choose_precision` may choose; OpenVINO's names."""
PRECISIONS: tuple[Precision, ...] = ("auto", "f32", "bf16")

CPU_INFO = Path("/proc/cpuinfo")
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
"""Linux's names for instructions that multiply 16-bit brain floats. OpenVINO also names bf16 among
what a processor can do where it only emulates it: on AVX2 nine times slower than float32."""


def choose_precision(asked: Precision, cpu_info: Path = CPU_INFO) -> Numbers:
    """What is asked for; for "auto" bf16 where the processor multiplies it, else f32.

    Where the system does not tell, as outside Linux, "auto" is f32.
    """
    if asked != "auto":
        return asked
    try:
        lines = cpu_info.read_text(encoding="utf-8").splitlines()
    except OSError:
        return "f32"
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return "f32" if BF16_FLAGS.isdisjoint(flags) else "bf16"
