"""Tensors that say ``cuda:0`` and hold nothing: full-size models in a second, without memory."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from simulated.guard import CaptureGuard, Report
from simulated.host_kernels import build

DEVICE = torch.device("cuda:0")

# A torch without CUDA has no device guard for it, which moving and indexing ask for. torch's own
# guard that does nothing is registered; a torch with CUDA and no card does so by itself.
GUARD_SOURCE = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
extern "C" void register_guard() {
  using namespace c10;
  if (!impl::hasDeviceGuardImpl(DeviceType::CUDA))
    impl::registerDeviceGuard(DeviceType::CUDA, new impl::NoOpDeviceGuardImpl<DeviceType::CUDA>());
}
"""


def allow_cuda_tensors() -> None:
    """Let tensors say ``cuda`` in this process, whatever the machine has."""
    if torch.backends.cuda.is_built():
        torch._C._ensureCUDADeviceGuardSet()
        return
    root = Path(torch.__file__).parent
    flags = (f"-I{root}/include", f"-L{root}/lib", f"-Wl,-rpath,{root}/lib", "-lc10")
    build(GUARD_SOURCE, "-std=c++20", "-O1", *flags).register_guard()


@contextlib.contextmanager
def fake_cuda() -> Iterator[None]:
    """Make every tensor created inside one without contents."""
    allow_cuda_tensors()
    with FakeTensorMode(allow_non_fake_inputs=False), torch.no_grad():
        yield


def on_fake_device(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Copy a module from the CPU or from ``meta``, with parameters that hold nothing."""

    def empty(tensor: Tensor) -> Tensor:
        number = dtype if tensor.is_floating_point() else tensor.dtype
        return torch.empty_strided(tensor.size(), tensor.stride(), dtype=number, device=DEVICE)

    return with_tensors(module, empty)


def with_tensors(module: nn.Module, replace: Callable[[Tensor], Tensor]) -> nn.Module:
    """Copy a module, with each parameter and buffer put through ``replace``."""
    memo: dict[int, Any] = {id(buffer): replace(buffer) for buffer in module.buffers()}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(replace(parameter), requires_grad=False)
    return copy.deepcopy(module, memo)


def check_capture(step: Callable[..., Any], *arguments: Any) -> Report:
    """Run a step as if it were captured.

    Raises:
        CaptureUnsafe: the step does what a CUDA graph may not capture.
    """
    with CaptureGuard() as guard:
        step(*arguments)
    return guard.report
