"""``yuv420.cu`` through g++: the kernels' own source, run with real numbers on the CPU."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.kernels import launcher

HERE = Path(__file__).parent
KERNELS = ("frames_to_pixels", "pixels_to_frames")


def build(source: str, *flags: str) -> ctypes.CDLL:
    """Compile C++ text into a library, once per text and flags."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed")
    digest = hashlib.sha256("\0".join((source, *flags)).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"sdxs-live-tests-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{digest}.so"
    if not library.exists():
        text = library.with_suffix(f".{os.getpid()}.cpp")
        text.write_text(source)
        built = text.with_suffix(".so")
        command = [compiler, "-shared", "-fPIC", str(text), *flags, "-o", str(built)]
        subprocess.run(command, check=True)
        built.replace(library)
    return ctypes.CDLL(str(library))


@functools.cache
def library() -> ctypes.CDLL:
    """Build the kernels; the very file that NVRTC compiles is included."""
    launches = "\n".join(
        f'extern "C" void launch_{name}(const unsigned int* grid, const unsigned int* block, '
        f"void** arguments) {{ launch({name}, grid, block, arguments); }}"
        for name in KERNELS
    )
    kernels = launcher.SOURCE.read_text("utf-8")
    shim = (HERE / "host_shim.h").read_text("utf-8").replace("#pragma once", "")
    flags = ("-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Werror")
    return build(f"{shim}\n{kernels}\n{launches}\n", *flags)


class HostKernel:
    """Stands for a loaded kernel."""

    def __init__(self, name: str) -> None:
        self.name = name


def launch(stream: object, config: Any, kernel: HostKernel, *arguments: Any) -> None:
    """Run a kernel on the CPU, taking the arguments as ``cuda.core.launch`` does."""
    assert hasattr(stream, "__cuda_stream__"), "not a stream that cuda.core takes"
    values = [in_c(argument) for argument in arguments]
    pointers = (ctypes.c_void_p * len(values))(
        *[ctypes.cast(ctypes.byref(value), ctypes.c_void_p) for value in values]
    )
    sizes = ctypes.c_uint * 3
    grid, block = ((*part, 1, 1)[:3] for part in (config.grid, config.block))
    getattr(library(), f"launch_{kernel.name}")(sizes(*grid), sizes(*block), pointers)


def in_c(argument: Any) -> Any:
    """Return what ``cuda.core.launch`` makes of an argument: a bare number becomes 8 bytes."""
    if isinstance(argument, bool):
        return ctypes.c_bool(argument)
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    if isinstance(argument, float):
        return ctypes.c_double(argument)
    return argument


def kernels() -> launcher.Kernels:
    """Return the kernels' launcher, over the CPU."""
    return launcher.Kernels(*[HostKernel(name) for name in KERNELS], "the host")  # type: ignore[arg-type]
