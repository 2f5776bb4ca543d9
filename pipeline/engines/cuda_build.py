"""From weights to the CUDA engine; and, where that cannot be, the reason."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.engines.engine import Size
from pipeline.errors import EngineError

if TYPE_CHECKING:
    from pipeline.engines.cuda_graph import CudaGraphEngine
    from pipeline.loaded import LoadedModel

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
OLDEST_CAPABILITY = (7, 5)
"""Older cards have no fast half precision, and torch no kernels for them."""


def why_no_cuda() -> str:
    """Return why no CUDA device can be used, in a few words; empty if one can.

    Imports torch only where a driver is installed.
    """
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return "no NVIDIA driver is installed"
    import torch

    if torch.version.cuda is None:
        return "this torch was built without CUDA"
    if not torch.cuda.is_available():
        return "torch finds no card that its driver can run"
    capability = torch.cuda.get_device_capability()
    if capability < OLDEST_CAPABILITY:
        return f"{torch.cuda.get_device_name()} is too old (SM {capability[0]}.{capability[1]})"
    return ""


def build_cuda_engine(load: Callable[[], LoadedModel], size: Size | None) -> CudaGraphEngine:
    """Load a model onto the first card and capture it.

    What does not fit is taken off the card again, before anybody is told: another model may be
    at work there.

    Args:
        load: what gives the model, on the host.
        size: None for the model's own.

    Raises:
        EngineError: no card can be used, or the model does not fit; the message says why.
        CheckpointError: weights are missing or do not fit.
    """
    if reason := why_no_cuda():
        raise EngineError(f"the CUDA engine cannot run: {reason}")
    import torch

    from pipeline.engines.cuda_graph import CudaGraphEngine, first_line, give_memory_back

    def start() -> CudaGraphEngine:
        dtype = torch.float16
        model = load().to(torch.device("cuda", 0), dtype)
        return CudaGraphEngine(model, size or model.default_size, dtype)

    try:
        return start()
    except torch.OutOfMemoryError as error:
        card = torch.cuda.get_device_name(0)
        reason = f"the model does not fit into the memory that {card} has left: {first_line(error)}"
    except EngineError as error:
        reason = str(error)
    # Not in an except block: the error holds what was on the card already, in a circle of frames.
    gc.collect()
    give_memory_back()
    raise EngineError(reason)
