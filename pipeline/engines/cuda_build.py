"""From weights to the CUDA engine; and, where that cannot be, the reason."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from pipeline.engines.engine import Size
from pipeline.errors import EngineError, first_line
from pipeline.hub import Progress

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
        return (
            f"torch {torch.__version__} was built without CUDA; install its CUDA build, as "
            "docs/cuda.md says"
        )
    if not torch.cuda.is_available():
        return f"torch finds no card that its driver can run: {ask_torch_why()}"
    try:
        capability = torch.cuda.get_device_capability()
    except RuntimeError as error:
        return f"the card does not answer: {first_line(error)}"
    if capability < OLDEST_CAPABILITY:
        return f"{torch.cuda.get_device_name()} is too old (SM {capability[0]}.{capability[1]})"
    return ""


def ask_torch_why() -> str:
    """Return torch's own words for why there is no card, such as a driver that is too old."""
    import torch

    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (AssertionError, RuntimeError) as error:
        return first_line(error).rstrip(".")
    return "it does not say why"


def build_cuda_engine(
    load: Callable[[], LoadedModel], size: Size | None, on_progress: Progress
) -> CudaGraphEngine:
    """Load a model onto the first card and capture it.

    What does not fit is taken off the card again, before anybody is told: another model may be
    at work there.

    Args:
        load: what gives the model, on the host.
        size: None for the model's own.
        on_progress: called in this thread.

    Raises:
        EngineError: no card can be used, it failed, or the model does not fit; the message says
            why.
        CheckpointError: weights are missing or do not fit.
    """
    if reason := why_no_cuda():
        raise EngineError(f"the CUDA engine cannot run: {reason}")
    import torch

    from pipeline.engines.cuda_graph import CudaGraphEngine, give_memory_back

    device, dtype = torch.device("cuda", 0), torch.float16
    card = torch.cuda.get_device_name(device)

    def start() -> CudaGraphEngine:
        model = load()
        on_progress(f"moving {model.name} onto {card}", None)
        model = model.to(device, dtype)
        return CudaGraphEngine(
            model, size or model.default_size, dtype, device=device, on_progress=on_progress
        )

    try:
        return start()
    except torch.OutOfMemoryError as error:
        reason = (
            f"the model does not fit into the memory that {card} has left: {first_line(error)}; "
            "close what else uses the card"
        )
    except RuntimeError as error:
        # After some of CUDA's errors every call of the process fails.
        reason = f"{card} failed: {first_line(error)}; if it does so again, start the program anew"
    except EngineError as error:
        reason = str(error)
    # Not in an except block: the error holds what was on the card already, in a circle of frames.
    gc.collect()
    with suppress(RuntimeError):  # of a card that has failed
        give_memory_back()
    raise EngineError(reason)
