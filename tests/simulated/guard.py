"""What a CUDA graph may not capture, told from the operations alone."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._inductor.utils import FORBIDDEN_CUDAGRAPH_OPS
from torch.utils._python_dispatch import TorchDispatchMode

# The rules lean on private names and on how this version of torch decomposes its operations.
assert torch.__version__.startswith("2.13."), f"check tests/simulated against {torch.__version__}"

aten = torch.ops.aten

# Kernels that make the host wait although shape-only tensors know the result's shape.
SYNCHRONIZING = {
    aten._local_scalar_dense.default,
    aten._unique2.default,
    aten.bincount.default,
    aten.equal.default,
    aten.histc.default,
    aten.is_nonzero.default,
    aten.linalg_lstsq.default,
    aten.masked_select.default,
    aten.multinomial.default,
    aten.nonzero.default,
    aten.unique_consecutive.default,
    aten.unique_dim.default,
}
DATA_DEPENDENT = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
INDEXING = {
    aten._index_put_impl_.default,
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
}
# They make or rename host tensors and never touch a stream.
HOST_BOOKKEEPING = {
    aten.alias.default,
    aten.clone.default,
    aten.detach.default,
    aten.expand.default,
    aten.lift_fresh.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.unsqueeze.default,
    aten.view.default,
}


class CaptureUnsafe(RuntimeError):
    """An operation that a CUDA graph may not capture; the message names its line."""


@dataclass
class Report:
    """What a checked region did."""

    operations: Counter[str] = field(default_factory=Counter)
    frozen: list[str] = field(default_factory=list)
    """Host scalars read by device operations: legal, but every replay uses the same value."""
    host_work: list[str] = field(default_factory=list)
    """Work on host tensors: done once, at capture, and never by a replay."""


class CaptureGuard(TorchDispatchMode):
    """Refuses inside itself what a CUDA graph may not capture."""

    def __init__(self) -> None:
        super().__init__()
        self.report = Report()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        refuse_unsafe(func, args, kwargs)
        result = func(*args, **kwargs)
        self.report.operations[str(func)] += 1
        inputs, outputs = tensors_of(args, kwargs), tensors_of(result)
        on_device = any(is_cuda(tensor) for tensor in (*inputs, *outputs))
        if on_device and any(not is_cuda(tensor) for tensor in inputs):
            self.report.frozen.append(f"{func} at {culprit()}")
        if not on_device and outputs and func not in HOST_BOOKKEEPING:
            self.report.host_work.append(f"{func} at {culprit()}")
        return result


def refuse_unsafe(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Check one operation before it runs.

    Raises:
        CaptureUnsafe: the operation would wait, copy across devices, or allocate pinned memory.
    """
    reason = _reason_against(func, args, kwargs)
    if reason:
        raise CaptureUnsafe(f"{func}: {reason}, at {culprit()}")


def _reason_against(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    if func is aten._pin_memory.default or kwargs.get("pin_memory"):
        return "allocates pinned memory, which queries events"
    if func in (aten._to_copy.default, aten.copy_.default, aten._copy_from.default):
        return _reason_against_copy(func, args, kwargs)
    if not any(is_cuda(tensor) for tensor in tensors_of(args, kwargs)):
        return None
    if func in INDEXING:
        return _reason_against_index([index for index in args[1] if index is not None])
    if func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None:
        return "waits for the device to learn its output's size"
    forbidden = str(func) in FORBIDDEN_CUDAGRAPH_OPS or torch.Tag.cudagraph_unsafe in func.tags
    if forbidden or func in SYNCHRONIZING or DATA_DEPENDENT & set(func.tags):
        return "waits for the device: a value or a shape depends on its data"
    return None


def _reason_against_copy(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    if func is aten._to_copy.default:
        source, target = args[0].device, torch.device(kwargs.get("device") or args[0].device)
    else:
        source, target = args[1].device, args[0].device
    if source.type == target.type:
        return None
    return f"copies from {source} to {target}: it waits, or bakes in the host's address"


def _reason_against_index(indices: list[Tensor]) -> str | None:
    if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
        return "indexes by a mask, which waits for the number of its elements"
    if any(not is_cuda(index) for index in indices):
        return "indexes by a host tensor, which is copied while the stream waits"
    return None


def is_cuda(tensor: Tensor) -> bool:
    """Tell whether a tensor says it lies on the device."""
    return tensor.device.type == "cuda"


def tensors_of(*values: Any) -> list[Tensor]:
    """Return every tensor in nested arguments."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            found.extend(tensors_of(*value))
        elif isinstance(value, dict):
            found.extend(tensors_of(*value.values()))
    return found


def in_each(change: Callable[[Any], Any], value: Any) -> Any:
    """Return nested arguments with each leaf changed."""
    if isinstance(value, tuple | list):
        return type(value)(in_each(change, item) for item in value)
    if isinstance(value, dict):
        return {key: in_each(change, item) for key, item in value.items()}
    return change(value)


def culprit() -> str:
    """Return the innermost line that belongs neither to torch nor to the simulation."""
    for frame in reversed(traceback.extract_stack()):
        if "/torch/" not in frame.filename and "/simulated/" not in frame.filename:
            return f"{frame.filename}:{frame.lineno} ({frame.line})"
    return "an unknown line"
