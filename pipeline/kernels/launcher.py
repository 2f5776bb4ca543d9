"""``yuv420.cu`` on a CUDA device: compiled once per architecture, launched on torch's stream.

Decided once per device, with the reason; whatever is missing (cuda-python, NVRTC, a driver that
is new enough, an architecture the compiler knows) leaves the work to plain torch.
"""

from __future__ import annotations

import ctypes
import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipeline.cache import cache_folder
from pipeline.errors import EngineError, PipelineError
from pipeline.kernels.frame_format import FrameFormat

if TYPE_CHECKING:
    from cuda.core import Kernel, ObjectCode
    from cuda.core.utils import FileStreamProgramCache

SOURCE = Path(__file__).with_name("yuv420.cu")
BLOCK = (32, 8)
"""Threads of a block: a warp along a row, so that its reads and writes are adjacent."""

logger = logging.getLogger(__name__)


class KernelsUnavailable(PipelineError):  # noqa: N818 - reads as the state it reports
    """The kernels cannot run here; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a device runs the kernels."""

    kernels: Kernels | None
    reason: str
    """For a person: what was decided and why."""


_decisions: dict[torch.device, Decision] = {}


def kernels_for(device: torch.device) -> Decision:
    """Decide, at the first call for a device, whether it runs the kernels. Logs the reason."""
    if device not in _decisions:
        try:
            kernels = Kernels.load(device)
        except KernelsUnavailable as error:
            turn_off(device, str(error))
        else:
            _decisions[device] = Decision(kernels, f"own kernels for frames, {kernels.arch}")
            logger.info(_decisions[device].reason)
    return _decisions[device]


def turn_off(device: torch.device, reason: str) -> None:
    """Leave a device's frames to plain torch from now on, and say why."""
    _decisions[device] = Decision(None, f"frames in plain torch: {reason}")
    logger.warning(_decisions[device].reason)


def compile_cubin(arch: str, log: io.StringIO | None = None) -> ObjectCode:
    """Compile the source for an architecture such as ``"sm_90"``; needs no driver.

    Taken from the user's cache unless ``log`` is given, which receives what the assembler says
    of registers and spills.

    Raises:
        KernelsUnavailable: cuda-python or NVRTC is missing, the architecture is unknown to it,
            or the source does not compile.
    """
    try:
        from cuda.core import Program, ProgramOptions
        from cuda.core._utils.cuda_utils import CUDAError
    except ImportError as error:
        raise KernelsUnavailable(
            f'cuda-python is not installed ({error}); install the extra "cuda"'
        ) from error
    try:
        options = ProgramOptions(arch=arch, std="c++17", ptxas_options=["-v"])
        program = Program(SOURCE.read_text("utf-8"), "c++", options)
        return program.compile("cubin", logs=log, cache=_cache() if log is None else None)
    except CUDAError as error:
        message = " ".join(str(error).split())
        raise KernelsUnavailable(f"compiling for {arch} failed: {message}") from error
    except RuntimeError as error:  # cuda-pathfinder: no such library
        raise KernelsUnavailable(f"the CUDA compiler library is missing ({error})") from error


def _cache() -> FileStreamProgramCache | None:
    from cuda.core.utils import FileStreamProgramCache

    try:
        return FileStreamProgramCache(cache_folder("kernels"))
    except OSError as error:
        logger.warning("compiled kernels are not kept: %s", error)
        return None


class Kernels:
    """The compiled kernels of one device, loaded and ready to be captured."""

    def __init__(self, to_pixels: Kernel, to_frames: Kernel, arch: str) -> None:
        self.arch = arch
        self._to_pixels = to_pixels
        self._to_frames = to_frames

    @classmethod
    def load(cls, device: torch.device) -> Kernels:
        """Compile or fetch the kernels, and load them onto ``device``.

        Raises:
            KernelsUnavailable: the message says what is missing or too old.
        """
        major, minor = torch.cuda.get_device_capability(device)
        arch = f"sm_{major}{minor}"
        code = compile_cubin(arch)
        from cuda.core import Device
        from cuda.core._utils.cuda_utils import CUDAError

        try:
            Device(device.index).set_current()
            to_pixels = code.get_kernel("frames_to_pixels")
            return cls(to_pixels, code.get_kernel("pixels_to_frames"), arch)
        except (CUDAError, RuntimeError) as error:
            message = " ".join(str(error).split())
            raise KernelsUnavailable(f"the driver refuses the kernels ({message})") from error

    def frames_to_pixels(
        self,
        frames: Tensor,
        pixels: Tensor,
        scale: float,
        offset: float,
        frame_format: FrameFormat,
    ) -> None:
        """Fill ``pixels`` from ``frames`` on the current stream."""
        batch, _, height, width = pixels.shape
        arguments = to_pixels_arguments(frames, pixels, scale, offset, frame_format)
        _launch(self._to_pixels, (width, height, batch), arguments)

    def pixels_to_frames(
        self,
        pixels: Tensor,
        frames: Tensor,
        scale: float,
        offset: float,
        frame_format: FrameFormat,
    ) -> None:
        """Fill ``frames`` from ``pixels`` on the current stream."""
        batch, _, height, width = pixels.shape
        arguments = to_frames_arguments(pixels, frames, scale, offset, frame_format)
        _launch(self._to_frames, (width // 2, height // 2, batch), arguments)


def _launch(kernel: Kernel, threads: tuple[int, int, int], arguments: tuple[Any, ...]) -> None:
    from cuda.core import LaunchConfig, launch
    from cuda.core._utils.cuda_utils import CUDAError

    across, down, batch = threads
    grid = (-(-across // BLOCK[0]), -(-down // BLOCK[1]), batch)
    stream = torch.cuda.current_stream()
    try:
        launch(stream, LaunchConfig(grid=grid, block=BLOCK), kernel, *arguments)
    except CUDAError as error:
        message = " ".join(str(error).split())
        raise EngineError(f"the frame kernels could not be launched: {message}") from error


# cuda.core passes a bare int as 8 bytes and a bare float as a double: only pointers stay bare.
def to_pixels_arguments(
    frames: Tensor, pixels: Tensor, scale: float, offset: float, frame_format: FrameFormat
) -> tuple[Any, ...]:
    """Return the arguments of the kernel ``frames_to_pixels``, each of its own C type."""
    height, width = pixels.shape[-2:]
    rows, frame_width = frames.shape[-2:]
    return (
        frames.data_ptr(),
        *_ints(frame_width, rows * 2 // 3, frame_format.layout == "nv12"),
        *_floats(*frame_format.to_rgb()),
        pixels.data_ptr(),
        *_ints(width, height, pixels.dtype == torch.float16, *pixels.stride()),
        *_floats(scale, offset),
    )


def to_frames_arguments(
    pixels: Tensor, frames: Tensor, scale: float, offset: float, frame_format: FrameFormat
) -> tuple[Any, ...]:
    """Return the arguments of the kernel ``pixels_to_frames``, each of its own C type."""
    height, width = pixels.shape[-2:]
    return (
        pixels.data_ptr(),
        *_ints(width, height, pixels.dtype == torch.float16, *pixels.stride()),
        *_floats(scale, offset, *frame_format.from_rgb()),
        frames.data_ptr(),
    )


def _ints(*values: int) -> tuple[ctypes.c_int, ...]:
    return tuple(ctypes.c_int(value) for value in values)


def _floats(*values: float) -> tuple[ctypes.c_float, ...]:
    return tuple(ctypes.c_float(value) for value in values)
